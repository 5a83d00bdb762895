"""Clips through a VAE of single pictures, for the families that have one; and models that make one picture."""

from __future__ import annotations

from typing import Any

import torch

from modelgrow.surgery import TrainError

CHUNK = 16
"""Frames encoded at once: as many as a clip of AnimateDiff or Latte has."""


def encode_frames(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """`pixels` (B, 3, T, H, W) -> shifted and scaled latents (B, C, T, h, w), float32."""
    frames = pixels.transpose(1, 2).flatten(0, 1).to(vae.dtype)
    parts = [vae.encode(part).latent_dist.mode().float() for part in frames.split(CHUNK)]
    shift = vae.config.get("shift_factor") or 0.0
    latents: torch.Tensor = (torch.cat(parts) - shift) * vae.config.scaling_factor
    clips: torch.Tensor = latents.unflatten(0, (pixels.shape[0], pixels.shape[2]))
    return clips.transpose(1, 2)


def picture_of(latents: torch.Tensor) -> torch.Tensor:
    """(B, C, 1, h, w) -> (B, C, h, w), for models of pictures. Raises `TrainError` if there are more frames."""
    if latents.shape[2] != 1:
        raise TrainError(f"this model makes pictures; clips of {latents.shape[2]} frames came in: set num_frames to 1")
    return latents[:, :, 0]
