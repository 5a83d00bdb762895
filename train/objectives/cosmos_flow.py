"""Cosmos Predict 2's rectified flow: levels that rise with a clip's length, and some that are almost noise alone.

NVIDIA's trainer draws EDM's levels, log-normal with mean 0 and deviation 1, times sqrt(F) for clips. As shares of noise
those are logit-normal, shifted by sqrt(F). One in twenty is drawn anew, far up, where sampling begins. Source:
cosmos-predict2, `video2world_model.py`.

Shape letters: B samples, C channels, F latent frames, h, w height and width of the latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from .edm import longer
from .rectified_flow import RectifiedFlow

HIGHEST = math.log(200), math.log(100_000)
"""Of the ln of EDM's levels, which is even between them."""


@dataclass(frozen=True, kw_only=True)
class CosmosFlow(RectifiedFlow):
    """The objective for the loop. Levels are sigmas, float32, in [0, 1]."""

    by_length: bool = True
    """Whether the shift is times sqrt(F), see `edm.longer`."""
    highest: float = 0.05
    """Share of the levels that are drawn anew."""

    def draw_for(self, latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """For these latents, (B, C, F, h, w): (B,)."""
        shifted = replace(self, shift=self.shift * longer(latents)) if self.by_length else self
        levels = shifted.draw(len(latents), generator)
        chosen, place = torch.rand(2, len(latents), generator=generator)
        low, high = HIGHEST
        return torch.where(chosen < self.highest, torch.sigmoid(low + place * (high - low)), levels)
