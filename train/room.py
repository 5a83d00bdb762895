"""What a run will take of the disk, told before its first step."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelgrow.surgery.disk import size

if TYPE_CHECKING:
    from .setup import Run

_MOMENTS = {"adamw": 8, "adamw8bit": 2}
"""Bytes of the optimizer's state per parameter."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """Bytes of what a run writes beside its cache, and of what the disk has free."""

    model: int
    """What comes out, with the growth by itself."""
    checkpoint: int
    checkpoints: int
    """How many there are at once: those that are kept, the best one, and the one that is being written."""
    free: int

    @property
    def sentence(self) -> str:
        needed = self.model + self.checkpoint * self.checkpoints
        kept = f"up to {self.checkpoints} checkpoints of {size(self.checkpoint)}"
        short = ", which is too little: make room before the run ends" if self.free < needed else ""
        return f"on disk: the result {size(self.model)}, {kept}; {size(self.free)} are free{short}"


def room_of(run: Run) -> Room:
    """Of a run that has not begun to train. Where the filesystem can clone files, the result takes less."""
    settings = run.settings
    written = [part for part in run.source.components if not settings.link or part.name == run.component.name]
    parts = [part.checkpoint for part in written if part.checkpoint is not None]
    whole = 0 if settings.train == "lora" else sum(checkpoint.num_bytes for checkpoint in parts)
    return Room(
        model=whole + 4 * run.num_trained,
        checkpoint=run.num_trained * (4 + _MOMENTS[settings.optimizer] + 4 * bool(settings.ema_decay)),
        checkpoints=settings.keep + 2,
        free=shutil.disk_usage(run.folder).free,
    )
