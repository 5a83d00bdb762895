"""What the loop asks of an objective. EDM, for SVD, belongs beside the two that are here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Objective(Protocol):
    """Shapes: `latents` and `noise` (B, ...), `levels` (B,)."""

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Noise levels in the objective's own measure, on the CPU."""

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """What the model sees."""

    def timesteps(self, levels: torch.Tensor) -> torch.Tensor:
        """What the model is told."""

    def target(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """What the model should answer."""
