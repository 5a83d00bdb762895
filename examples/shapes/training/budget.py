"""How long to train: a number of steps or of minutes, whichever is given. Schedules follow its progress."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

WARMUP = 0.03
"""Share of the budget in which the learning rate rises."""


@dataclass(kw_only=True)
class Budget:
    """`progress()` runs from 0 to 1. What was used before a restart is counted."""

    minutes: float | None = None
    steps: int | None = None
    step: int = 0
    used_seconds: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Seconds, those of earlier runs included."""
        return self.used_seconds + time.monotonic() - self._started

    def progress(self) -> float:
        parts = []
        if self.minutes is not None:
            parts.append(self.elapsed() / (60 * self.minutes))
        if self.steps is not None:
            parts.append(self.step / self.steps)
        return min(max(parts), 1.0)

    def state(self) -> dict[str, float]:
        return {"step": self.step, "used_seconds": self.elapsed()}


def learning_rate(peak: float, progress: float, *, floor: float = 0.0) -> float:
    """Linear warm-up, then a cosine down to `floor` x `peak`."""
    if progress < WARMUP:
        return peak * max(progress, 1e-3) / WARMUP
    cosine = 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))
    return peak * (floor + (1 - floor) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def save_checkpoint(path: Path, state: dict[str, object]) -> None:
    """Written aside and moved into place, so that a kill leaves the last complete one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def open_log(path: Path) -> logging.Logger:
    """A logger that writes to the terminal and to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger(path.stem)
    log.setLevel(logging.INFO)
    for handler in (logging.StreamHandler(), logging.FileHandler(path)):
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        log.addHandler(handler)
    return log


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
