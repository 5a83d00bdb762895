"""Rectified flow that tells the model of which samples it is given the first frame beside the noise: Wan VACE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .rectified_flow import RectifiedFlow


@dataclass(frozen=True, kw_only=True)
class ToldFlow:
    """The objective for the loop. Levels are the flow's, (B,), float32; negative where the first frame is given."""

    flow: RectifiedFlow
    share: float
    """Of the samples whose first frame is given."""

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        levels = self.flow.draw(batch, generator)
        return torch.where(torch.rand(batch, generator=generator) < self.share, -levels, levels)

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return self.flow.noisy(latents, noise, levels.abs())

    def timesteps(self, levels: torch.Tensor) -> torch.Tensor:
        """(B, 2): the timestep, and 1 where the first frame is given."""
        return torch.stack([self.flow.timesteps(levels.abs()), (levels < 0).to(levels.dtype)], dim=1)

    def target(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return self.flow.target(latents, noise, levels.abs())
