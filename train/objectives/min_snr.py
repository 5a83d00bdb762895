"""Diffusion whose loss weighs a timestep by its signal-to-noise ratio, up to a bound: the objective of Allegro.

With the ratio r = a / (1 - a) of the schedule's `alphas_cumprod` a, the squared error of the noise counts
min(r, 5) / r, that of v min(r, 5) / (r + 1): the error of the data counts min(r, 5) in both (Hang et al.,
arXiv 2303.09556, section 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .diffusion import Diffusion


@dataclass(frozen=True, kw_only=True, eq=False)
class MinSnr(Diffusion):
    """The objective for the loop. Levels are timesteps, int64, drawn evenly."""

    bound: float = 5.0
    """The paper's gamma."""

    def weights(self, levels: torch.Tensor) -> torch.Tensor:
        """Of the squared error of each sample, (B, 1, 1, 1, 1), float32."""
        a = self.alphas_cumprod.to(levels.device)[levels]
        ratio = a / (1 - a)
        whole = ratio if self.prediction == "epsilon" else ratio + 1
        return (ratio.clamp(max=self.bound) / whole).view(-1, 1, 1, 1, 1)
