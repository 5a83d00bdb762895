"""Rectified flow whose noise levels rise with the number of tokens: the objective of LTX-2.

    s = sigmoid(n + m),   n ~ N(0, 1),   m = 0.95 at 1024 tokens, 2.05 at 4096 and more, linear between and below

stretched so that its percentiles 0.5 and 99.9 become 0 and 1; a tenth of the levels is even instead, so that no level
is left out. Source: Lightricks/LTX-2, ltx-trainer, `timestep_samplers.py`. sigmoid(n + m) is the scheduler's shift of
sigmoid(n) by e^m.

Shape letters: B samples, C channels, F latent frames, h, w height and width of the latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .rectified_flow import RectifiedFlow

LOWEST = 1e-3
"""No clip is trained on at a lower level: what falls below is mirrored at it."""
BELOW, ABOVE = -2.5758, 3.0902
"""The percentiles 0.5 and 99.9 of N(0, 1)."""
EVEN = 0.1
"""Share of the levels that is even."""


@dataclass(frozen=True, kw_only=True)
class ShiftedFlow(RectifiedFlow):
    """The objective for the loop. Levels are sigmas, float32, in [0, 1]."""

    patch: int = 1
    """Latents in one token."""
    few: int = 1024
    """Tokens at which m is `low`, and next those from which on it is `high`."""
    many: int = 4096
    low: float = 0.95
    high: float = 2.05
    fixed: float | None = None
    """m for any number of tokens."""

    @classmethod
    def of(cls, scheduler: Any, *, patch: int, fixed: float | None) -> ShiftedFlow:
        """With the numbers that the scheduler shifts its own levels by, if it shifts them by size: one of a distilled
        model does not."""
        config = scheduler.config
        if not config.get("use_dynamic_shifting"):
            return cls(patch=patch, fixed=fixed)
        return cls(
            patch=patch,
            few=int(config.get("base_image_seq_len", cls.few)),
            many=int(config.get("max_image_seq_len", cls.many)),
            low=float(config.get("base_shift", cls.low)),
            high=float(config.get("max_shift", cls.high)),
            fixed=fixed,
        )

    def mean(self, tokens: int) -> float:
        """m."""
        if self.fixed is not None:
            return self.fixed
        return self.low + (self.high - self.low) * (min(tokens, self.many) - self.few) / (self.many - self.few)

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """For clips of `few` tokens: (B,)."""
        return self._draw(batch, self.mean(self.few), generator)

    def draw_for(self, latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """For these latents, (B, C, F, h, w): (B,)."""
        return self._draw(len(latents), self.mean(latents[0, 0].numel() // self.patch), generator)

    def _draw(self, batch: int, mean: float, generator: torch.Generator) -> torch.Tensor:
        normal = torch.randn(batch, generator=generator)
        first, last = torch.sigmoid(torch.tensor([mean + BELOW, mean + ABOVE]))
        stretched = (torch.sigmoid(normal + mean) - first) / (last - first)
        shifted = torch.where(stretched >= LOWEST, stretched, 2 * LOWEST - stretched).clamp(0, 1)
        even = LOWEST + (1 - LOWEST) * torch.rand(batch, generator=generator)
        return torch.where(torch.rand(batch, generator=generator) < EVEN, even, shifted)
