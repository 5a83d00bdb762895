"""The no-op alarm: did anything change? A run that changes nothing must not look like one that does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from modelgrow.surgery import TrainError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Changed:
    """What the first steps did."""

    moved: int
    """Trained tensors that differ from the start."""
    tensors: int
    parameters_by: float
    """Largest absolute change of a trained value."""
    output_by: float
    """Largest absolute change of the model's answer to a fixed input."""
    noise: float
    """How much two runs of the unchanged model differ."""

    @property
    def sentence(self) -> str:
        return (
            f"{self.moved} of {self.tensors} trained tensors moved, by up to {self.parameters_by:.2g}; the output to a "
            f"fixed input by up to {self.output_by:.2g} (two runs without training: {self.noise:.2g})"
        )


def compare(
    start: Mapping[str, torch.Tensor],
    now: Mapping[str, torch.Tensor],
    outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> Changed:
    """What moved.

    Args:
        start: Trained tensors before the first step.
        now: The same after some.
        outputs: The model's answer to one input: at the start, at the start once more, now.
    """
    moves = [
        (now[name].detach().float().cpu() - tensor.float().cpu()).abs().max().item() for name, tensor in start.items()
    ]
    first, again, last = outputs
    return Changed(
        moved=sum(move > 0 for move in moves),
        tensors=len(moves),
        parameters_by=max(moves),
        output_by=(last - first).abs().max().item(),
        noise=(again - first).abs().max().item(),
    )


def check(changed: Changed, step: int) -> None:
    """Raises `TrainError` if nothing moved, or if what moved makes no difference."""
    if changed.moved == 0:
        raise TrainError(
            f"after {step} steps no trained parameter has changed: {changed.sentence}. "
            "Is the learning rate 0, or the loss not finite?"
        )
    if changed.output_by <= 2 * changed.noise:
        raise TrainError(
            f"after {step} steps the model still answers as before: {changed.sentence}. "
            "What trains does not reach the output; was it grown with zeros in both gate and projection?"
        )
