"""Kandinsky 5, text or image to video; what its two video pipelines do before and around their transformer.

The class has no mask for its text: captions of several lengths in one call would read each other's padding, and none
does so in a pipeline that is asked for one clip. So clips are called one by one, each with its own caption's tokens.

Shape letters: B samples, C channels, F latent frames, h, w in latents, L tokens, D width of their states, E
width of a pooled prompt.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

from modelgrow.surgery import TrainError

from ..objectives import RectifiedFlow, scheduled
from ..objectives.first_frame_flow import FirstFrameFlow
from .clips import clip_by_clip
from .latents import mean_of, scaled

if TYPE_CHECKING:
    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text

BY_CLIP = True
MAX_TOKENS = 512
"""What the pipelines cut a prompt off at."""
SPARSE = "nabla"
"""The attention_type of the 10-second models."""
SPARSE_TILE = 8
"""A side, in tokens, of what sparse attention looks at as one."""
LATENTS = "kept_image_latents"
"""(B, C, h, w) scaled: of the first frame, which the pipeline gives also where it leaves out the prompt."""


def objective(pipeline: Any, settings: Settings) -> Objective:
    """The scheduler's flow, by whose shift of 5 the model was trained; for image to video, of all frames but the first,
    in as many samples as `first_frame` says. The model's own training gave it in a fifth of all.

    Raises:
        TrainError: The pipeline makes pictures, or its sparse attention can't train on this device.
    """
    kind = type(pipeline).__name__.removeprefix("Grown")
    if kind not in ("Kandinsky5T2VPipeline", "Kandinsky5I2VPipeline"):
        raise TrainError(f"{kind}: of Kandinsky 5, text to video and image to video are trained here")
    if pipeline.transformer.config.attention_type == SPARSE:
        _use_flex(pipeline)
    flow = scheduled(pipeline, settings)
    share = 1.0 if settings.first_frame is None else settings.first_frame
    if _starts_from_a_picture(pipeline) and isinstance(flow, RectifiedFlow):
        return FirstFrameFlow(flow=flow, share=share)
    return flow


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, 512, D) and `mask` (B, 512) of Qwen; `pooled` (B, E) of CLIP.

    Each caption by itself: the pipeline hands its language model no mask, and reads no padding of a single one.
    """
    found = [pipeline.encode_prompt([caption], max_sequence_length=MAX_TOKENS)[:2] for caption in captions]
    lengths = torch.tensor([states.shape[1] for states, _ in found])
    mask = torch.arange(MAX_TOKENS) < lengths[:, None]
    return {
        "states": torch.cat([pad(states, (0, 0, 0, MAX_TOKENS - states.shape[1])) for states, _ in found]),
        "mask": mask.to(found[0][0].device),
        "pooled": torch.cat([pooled for _, pooled in found]),
    }


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return scaled(pipeline.vae, mean_of(pipeline.vae, pixels))


def encode_conditions(pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None]) -> dict[str, torch.Tensor]:
    """The first frame's latents, for image to video: encoded alone, as the pipeline encodes its image."""
    if not _starts_from_a_picture(pipeline):
        return {}
    return {LATENTS: encode_video(pipeline, pixels[:, :, :1])[:, :, 0]}


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """`timesteps`: (B,), or (B, F) for image to video, 0 where a frame is given."""
    return clip_by_clip(partial(_predict, pipeline, model), noisy, timesteps, text)


def _predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """One clip: shapes (1, C, F, h, w), (1,) or (1, F), and (1, ...)."""
    seen = _seen(pipeline, noisy, timesteps, text)
    told = timesteps.amax(dim=1) if timesteps.ndim == 2 else timesteps
    states = text["states"][:, text["mask"][0]]
    device, (frames, height, width) = noisy.device, noisy.shape[2:]
    factor, sides = pipeline.vae_scale_factor_spatial, pipeline.transformer.config.patch_size[1:]
    tokens = (frames, height // sides[0], width // sides[1])
    output: torch.Tensor = model(
        hidden_states=seen,
        encoder_hidden_states=states,
        pooled_projections=text["pooled"],
        timestep=told.to(noisy.dtype),
        visual_rope_pos=[torch.arange(count, device=device) for count in tokens],
        text_rope_pos=torch.arange(states.shape[1], device=device),
        scale_factor=pipeline._get_scale_factor(height * factor, width * factor),
        sparse_params=_sparse(pipeline, seen),
        return_dict=True,
    ).sample
    return output.permute(0, 4, 1, 2, 3)


def _seen(pipeline: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """(1, F, h, w, C) for a model without conditions. Others have C channels more, always zeros, and a mask that says
    which frame is given; that one stands among the noisy ones. (1, F, h, w, 2 C + 1)."""
    mask = torch.zeros_like(noisy[:, :1])
    if timesteps.ndim == 2:
        given = timesteps[:, None, :, None, None] == 0
        noisy = torch.where(given, text[LATENTS][:, :, None].to(noisy.dtype), noisy)
        mask = mask + given.to(mask.dtype)
    if pipeline.transformer.config.visual_cond:
        noisy = torch.cat([noisy, torch.zeros_like(noisy), mask], dim=1)
    return noisy.permute(0, 2, 3, 4, 1)


def _sparse(pipeline: Any, seen: torch.Tensor) -> Any:
    """Of sparse attention; None elsewhere. Raises `TrainError` if the frames have no whole tiles for it."""
    config = pipeline.transformer.config
    if config.attention_type == SPARSE:
        sides = [size // patch for size, patch in zip(seen.shape[2:4], config.patch_size[1:], strict=True)]
        if any(side % SPARSE_TILE for side in sides):
            pixels = SPARSE_TILE * config.patch_size[1] * pipeline.vae_scale_factor_spatial
            raise TrainError(
                f"sparse attention (attention_type {SPARSE}) takes frames of sides that {pixels} divides; set height "
                "and width to such"
            )
    return pipeline.get_sparse_params(seen, seen.device)


def _use_flex(pipeline: Any) -> None:
    """What sparse attention is written for, and diffusers does not choose by itself."""
    if pipeline._execution_device.type == "cpu":
        raise TrainError(
            f"sparse attention (attention_type {SPARSE}) trains on a GPU only: torch's flex attention has no backward "
            "pass on a CPU"
        )
    pipeline.transformer.set_attention_backend("flex")


def _starts_from_a_picture(pipeline: Any) -> bool:
    return type(pipeline).__name__.endswith("Kandinsky5I2VPipeline")
