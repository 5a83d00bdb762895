"""Open-Sora 1.2's rectified flow: levels by size and length, and frames that are given.

    x_t = (1 - t / 1000) x + (t / 1000) e,   target x - e

with data x and noise e: the negative of `rectified_flow.target`. A given frame is at t = 0, that is x itself, the model
is told which frames those are, and their error does not count. Source: `opensora/schedulers/rf/rectified_flow.py`.

Shape letters: B samples, C channels, F latent frames, h, w height and width of the latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from modelgrow.pipelines.open_sora.flow import NUM_TRAIN_TIMESTEPS, timestep_transform

from .frame_masks import GIVEN, TOTAL, draw_frame_mask, of_frames, weights_of

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class OpenSoraFlow:
    """The objective for the loop. Levels are timesteps of every latent frame, (B, F), float32, or `GIVEN`."""

    pixel_frames: Callable[[int], int]
    """Latent frames -> frames: the VAE's."""
    spatial_factor: int = 8
    """Pixels to a latent."""
    sampling: str = "logit_normal"
    """Density of the levels before the transform: "logit_normal" (mean 0, deviation 1) or "uniform"."""
    frame_conditioning: float = TOTAL
    """Share of the samples in which some frames are given."""

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """For pictures of the base resolution, which need no transform: (B, 1)."""
        return self._timesteps(batch, generator)[:, None]

    def draw_for(self, latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Of these latents, (B, C, F, h, w): transformed by their size and length."""
        frames, height, width = latents.shape[2:]
        factor = self.spatial_factor
        timesteps = timestep_transform(
            self._timesteps(len(latents), generator), height * factor, width * factor, self.pixel_frames(frames)
        )
        masks = [draw_frame_mask(frames, self.frame_conditioning, generator) for _ in latents]
        return torch.where(torch.stack(masks), timesteps[:, None], GIVEN)

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        share = of_frames(levels.clamp(min=0) / NUM_TRAIN_TIMESTEPS)
        return (1 - share) * latents + share * noise

    def timesteps(self, levels: torch.Tensor) -> torch.Tensor:
        """As they are: `told` takes them apart for the model."""
        return levels

    def target(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return latents - noise

    def weights(self, levels: torch.Tensor) -> torch.Tensor:
        """Of the squared error, (B, 1, F, 1, 1): each sample's mean is that over its denoised frames."""
        return weights_of(levels)

    def _timesteps(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        scheme = self.sampling if self.sampling != "uniform" else "none"
        drawn = compute_density_for_timestep_sampling(scheme, batch, logit_mean=0.0, logit_std=1.0, generator=generator)
        timesteps: torch.Tensor = drawn * NUM_TRAIN_TIMESTEPS
        return timesteps


def told(levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of levels (B, F), what the model is told: a timestep per sample, (B,), and which frames are denoised, (B, F)."""
    return levels.amax(dim=1), levels >= 0
