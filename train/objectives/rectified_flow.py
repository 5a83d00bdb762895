"""Rectified flow, the objective of Wan, LTX-Video and every model that FlowMatchEulerDiscreteScheduler samples.

A sample at noise level s in [0, 1] lies on the straight line from data x (s = 0) to noise e (s = 1), and
the model predicts the line's direction (Liu et al., arXiv 2209.03003; levels as in Esser et al., arXiv
2403.03206, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from .objective import of_samples

NUM_TRAIN_TIMESTEPS = 1000
"""The scheduler's: what a model is told is `sigma * NUM_TRAIN_TIMESTEPS`."""


def sample_sigmas(
    batch: int, *, mean: float = 0.0, std: float = 1.0, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Noise levels from a logit-normal distribution; a higher `mean` trains more at high noise. Shape (B,), float32."""
    return torch.sigmoid(torch.randn(batch, generator=generator) * std + mean)


def noisy_sample(latents: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """(1 - s) x + s e. `latents`, `noise`: shape (B, ...); `sigmas`: shape (B,)."""
    level = of_samples(sigmas, latents)
    return (1 - level) * latents + level * noise


def target(latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """What the model predicts at every level: e - x."""
    return noise - latents


def timesteps(sigmas: torch.Tensor) -> torch.Tensor:
    """What the model is told, in the scheduler's units. Shape (B,)."""
    return sigmas * NUM_TRAIN_TIMESTEPS


@dataclass(frozen=True, kw_only=True)
class RectifiedFlow:
    """The objective for the loop. Levels are sigmas, float32, in [0, 1]."""

    sampling: str = "logit_normal"
    """Density of the levels before the shift: "logit_normal" (mean 0, deviation 1) or "uniform"."""
    shift: float = 1.0
    """s' = shift s / (1 + (shift - 1) s), the scheduler's own formula (arXiv 2403.03206, equation 23)."""
    inverted: bool = False
    """The scheduler's `invert_sigmas` (Mochi): the model is told 1 - s, and predicts the way to the data, x - e."""

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        scheme = self.sampling if self.sampling != "uniform" else "none"
        sigmas = compute_density_for_timestep_sampling(
            scheme, batch, logit_mean=0.0, logit_std=1.0, generator=generator
        )
        shifted: torch.Tensor = self.shift * sigmas / (1 + (self.shift - 1) * sigmas)
        return shifted

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return noisy_sample(latents, noise, levels)

    def timesteps(self, levels: torch.Tensor) -> torch.Tensor:
        return timesteps(1 - levels if self.inverted else levels)

    def target(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return target(noise, latents) if self.inverted else target(latents, noise)
