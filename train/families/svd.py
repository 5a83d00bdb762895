"""Stable Video Diffusion and ExVideo, image to video; what StableVideoDiffusionPipeline does around its UNet.

The model reads the clip's own first frame: its latents beside every frame's, its CLIP states in cross-attention, and
three numbers. Shape letters: B samples, C channels, T frames, H, W in pixels, h, w in latents, D width of the states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing

from ..objectives.edm import Edm
from .frames import encode_frames
from .motion import motion_bucket

if TYPE_CHECKING:
    from ..settings import Settings
    from .family import Text

CAPTIONS = False
CAUSAL = False
CLIP_SIDE = 224
"""Pixels, of the picture that CLIP reads."""
FRAME_RATE = 30.0
"""Of clips that do not say; what ExVideo tells the model of all of its own."""
LATENTS, STATES, NUMBERS = "image_latents", "image_states", "kept_numbers"
"""(B, C, h, w) unscaled, (B, 1, D) and (B, 3). The image, not the numbers, is left out now and then, for guidance."""


def objective(pipeline: Any, settings: Settings) -> Edm:
    return Edm.of(pipeline.scheduler, kind=settings.edm, contrast=settings.contrast, scale=settings.latent_scale)


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """Nothing: the model reads no text."""
    return {}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return encode_frames(pipeline.vae, pixels)


def encode_conditions(pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None]) -> dict[str, torch.Tensor]:
    """What the pipeline makes of an image, here the first frame, without noise on it; and numbers of the clip."""
    first = pixels[:, :, 0].to(pipeline.vae.dtype)
    # CLIP's processor makes numpy arrays, which nothing on a GPU can become.
    small = (_resize_with_antialiasing(first.float(), (CLIP_SIDE, CLIP_SIDE)) + 1).cpu() / 2
    rates = torch.tensor([rate or FRAME_RATE for rate in frame_rates], device=pixels.device)
    numbers = torch.stack([rates.round() - 1, motion_bucket(pixels).float(), torch.zeros_like(rates)], dim=1)
    return {
        LATENTS: pipeline.vae.encode(first).latent_dist.mode().float(),
        STATES: pipeline._encode_image(small, pixels.device, 1, do_classifier_free_guidance=False),
        NUMBERS: numbers,
    }


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    frames = noisy.shape[2]
    image = text[LATENTS].to(noisy.dtype)[:, :, None].expand(-1, -1, frames, -1, -1)
    output: torch.Tensor = model(
        sample=torch.cat([noisy, image], dim=1).transpose(1, 2),
        timestep=timesteps,
        encoder_hidden_states=text[STATES],
        added_time_ids=text[NUMBERS],
        return_dict=False,
    )[0]
    return output.transpose(1, 2)
