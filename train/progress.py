"""What a run tells of itself after each step."""

from __future__ import annotations

from dataclasses import dataclass

EDGE = 20
"""Steps over which the first and the last loss are averaged."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What is known after a step."""

    step: int
    steps: int
    loss: float
    """Averaged over about the last 50 steps."""
    validation: float | None
    """Loss on held-out clips when it was last measured."""
    learning_rate: float
    samples_per_second: float
    memory: int
    """Bytes: the device's peak on a GPU, 0 elsewhere."""
    seconds: float
    """Since this session began to train."""
    seconds_left: float
