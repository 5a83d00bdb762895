"""Rectified flow of a model that serves some noise levels only: Wan 2.2 A14B has one transformer for each side."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .rectified_flow import RectifiedFlow


@dataclass(frozen=True, kw_only=True)
class OneSide(RectifiedFlow):
    """The objective for the loop. Levels are sigmas, float32, from `low` to `high`, both after the shift.

    Their density is that of `RectifiedFlow` between the two, as if all that it draws elsewhere were thrown away.
    """

    low: float = 0.0
    high: float = 1.0

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """By the inverse of the distribution function, so that nothing need be thrown away."""
        ends = torch.tensor([self.low, self.high], dtype=torch.float64)
        ends = ends / (self.shift - (self.shift - 1) * ends)  # before the shift
        if self.sampling != "uniform":
            ends = torch.special.ndtr(torch.logit(ends))
        drawn = ends[0] + (ends[1] - ends[0]) * torch.rand(batch, generator=generator, dtype=torch.float64)
        if self.sampling != "uniform":
            drawn = torch.sigmoid(torch.special.ndtri(drawn))
        return (self.shift * drawn / (1 + (self.shift - 1) * drawn)).float().clamp(self.low, self.high)
