"""What VAEs of clips give, and how it is normalised: the steps that families share.

Shape letters: B samples, C channels, T frames, H, W in pixels, F latent frames, h, w in latents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad


def mean_of(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The posterior's mean of clips, (B, 3, T, H, W) in [-1, 1]: (B, C, F, h, w), float32, not normalised."""
    latents: torch.Tensor = vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float()
    return latents


def mean_of_each(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """`mean_of`, for a VAE that takes one clip at a time."""
    return torch.cat([mean_of(vae, clip) for clip in pixels.split(1)])


def then_zeros(first: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    """A picture's latents (B, C, 1, h, w) as a clip's, (B, C, F, h, w) like `noisy` and of its dtype: zeros behind."""
    return pad(first.to(noisy.dtype), (0, 0, 0, 0, 0, noisy.shape[2] - 1))


def scaled(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Times the VAE's scaling factor."""
    normalised: torch.Tensor = latents * vae.config.scaling_factor
    return normalised


def statistics(vae: Any, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The VAE's mean and standard deviation of each channel, (1, C, 1, 1, 1); None if its config has none."""
    tables = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if tables[0] is None or tables[1] is None:
        return None
    mean, std = (torch.tensor(table, device=latents.device).view(1, -1, 1, 1, 1) for table in tables)
    return mean, std


def normalised(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Less the mean, over the standard deviation; as they are where the VAE's config has none."""
    known = statistics(vae, latents)
    if known is None:
        return latents
    mean, std = known
    return (latents - mean) / std
