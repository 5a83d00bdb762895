"""What came of a run."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from .progress import EDGE

if TYPE_CHECKING:
    from pathlib import Path

    from .alarm import Changed
    from .loop import Loop
    from .memory import Memory


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a run."""

    model: Path
    """What was named, a grown pipeline or component, with what was learned; ready for diffusers."""
    growth: Path | None
    """The growth by itself, for its base; None for a LoRA, and where weights trained that the base has too."""
    steps: int
    first_loss: float | None
    last_loss: float | None
    """Means over the first and the last 20 steps of this session; None if it had none left to do."""
    validation: float | None
    """Loss on held-out clips at the end."""
    trained_parameters: int
    changed: Changed | None
    seconds: float
    predicted_memory: int
    """Bytes on the device, before the first step."""
    peak_memory: int | None
    """What it came to; None without a GPU."""

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "model": str(self.model),
            "growth": str(self.growth) if self.growth else None,
            "changed": self.changed.sentence if self.changed else None,
        }


def result_of(loop: Loop, memory: Memory, *, model: Path, growth: Path | None, seconds: float) -> Result:
    """Of a loop at its end, what was predicted of it, what was written, and how long it trained in this session."""
    losses = loop.losses
    return Result(
        model=model,
        growth=growth,
        steps=loop.step,
        first_loss=fmean(losses[:EDGE]) if losses else None,
        last_loss=fmean(losses[-EDGE:]) if losses else None,
        validation=loop.validation,
        trained_parameters=loop.run.num_trained,
        changed=loop.changed,
        seconds=seconds,
        predicted_memory=memory.total,
        peak_memory=loop.peak or None,
    )
