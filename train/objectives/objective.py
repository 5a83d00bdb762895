"""What the loop asks of an objective.

Shape letters: B samples; the axes behind it are the latents', (B, C, F, h, w), or none, (B,), or any that fit to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Objective(Protocol):
    """`latents` and `noise` are (B, C, F, h, w) and of one dtype; `levels` (B, ...), float32 or int64, as each says.

    A file may have besides: `draw_for(latents, generator)` in place of `draw`, where levels depend on the size of the
    latents; `weights(levels)`, of the squared error, of any shape that fits to it. See `draw_levels` and `mean_error`.
    """

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """Noise levels in the objective's own measure, on the CPU."""

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """What the model sees."""

    def timesteps(self, levels: torch.Tensor) -> torch.Tensor:
        """What the model is told."""

    def target(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """What the model should answer."""


def draw_levels(objective: Objective, latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Noise levels for these latents, on the CPU."""
    own: Any = getattr(objective, "draw_for", None)
    drawn: torch.Tensor = own(latents, generator) if own else objective.draw(len(latents), generator)
    return drawn


def of_samples(values: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """A number for each sample, (B,), in the shape that fits to latents, (B, 1, ...), and where they are."""
    return values.view(-1, *[1] * (latents.ndim - 1)).to(latents.device)


def mean_error(
    objective: Objective, prediction: torch.Tensor, target: torch.Tensor, levels: torch.Tensor
) -> torch.Tensor:
    """Mean squared error, weighted if the objective says how: a number."""
    error = (prediction - target).square()
    weights: Any = getattr(objective, "weights", None)
    return (error if weights is None else weights(levels) * error).mean()
