"""Open-Sora 1.2 and 1.0, text to video; what OpenSoraPipeline does before and around its transformer.

Shape letters: B samples, F latent frames, L tokens, D width of their states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from modelgrow.pipelines.open_sora.sizes import IMAGE_FPS, VIDEO_FPS

from ..objectives import objective_of
from ..objectives.open_sora_flow import OpenSoraFlow, told

if TYPE_CHECKING:
    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text

CAUSAL = False
"""Clips are of whole chunks of the VAE, see `length_factor`."""


def length_factor(pipeline: Any) -> int:
    """Frames that the VAE codes together, 17, of which a clip has a multiple; without its temporal part, 1."""
    vae = pipeline.vae
    return 1 if vae.temporal_vae is None else int(vae.config.micro_frame_size or vae.temporal_compression_ratio)


def objective(pipeline: Any, settings: Settings) -> Objective:
    """The flow of 1.2, or the noise prediction of 1.0."""
    if not pipeline.is_flow:
        return objective_of(pipeline.scheduler)
    return OpenSoraFlow(
        pixel_frames=pipeline.vae.pixel_frames,
        spatial_factor=pipeline.vae.spatial_compression_ratio,
        sampling=settings.timestep_sampling,
        frame_conditioning=settings.frame_conditioning,
    )


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, L, D) and `kept_mask` (B, L). The reference cleans prompts, and not its captions.

    "" is the learned null caption. It is as long as the caption that it stands for, so the mask is kept.
    """
    states, mask, null, _ = pipeline.encode_prompt(captions)
    empty = torch.tensor([not caption for caption in captions], device=states.device)
    return {"states": torch.where(empty[:, None, None], null, states), "kept_mask": mask}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    latents: torch.Tensor = pipeline.encode_video(pixels)
    return latents


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """`timesteps`: (B,), or (B, F) for 1.2, negative where a frame is given. Clips count as of 24 frames per second,
    which is what the pipeline assumes too."""
    samples, channels, frames, height, width = noisy.shape
    timestep, frame_mask = told(timesteps) if timesteps.ndim == 2 else (timesteps, None)
    factor = pipeline.vae.spatial_compression_ratio
    numbers = {"fps": IMAGE_FPS if frames == 1 else VIDEO_FPS, "height": height * factor, "width": width * factor}
    output: torch.Tensor = model(
        hidden_states=noisy,
        timestep=timestep,
        encoder_hidden_states=text["states"],
        encoder_attention_mask=text["kept_mask"],
        frame_mask=frame_mask,
        return_dict=False,
        **{name: torch.full((samples,), float(value), device=noisy.device) for name, value in numbers.items()},
    )[0]
    return output[:, :channels]
