"""Clips through a VAE of single pictures, for the families that have one."""

from __future__ import annotations

from typing import Any

import torch

CHUNK = 16
"""Frames encoded at once: as many as a clip of AnimateDiff or Latte has."""


def encode_frames(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """`pixels` (B, 3, T, H, W) -> scaled latents (B, C, T, h, w), float32."""
    frames = pixels.transpose(1, 2).flatten(0, 1).to(vae.dtype)
    parts = [vae.encode(part).latent_dist.mode().float() for part in frames.split(CHUNK)]
    latents: torch.Tensor = torch.cat(parts) * vae.config.scaling_factor
    clips: torch.Tensor = latents.unflatten(0, (pixels.shape[0], pixels.shape[2]))
    return clips.transpose(1, 2)
