"""The start of a run, to compare with what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from . import alarm
from .sharded import whole

if TYPE_CHECKING:
    from .loop import Loop


class Watch:
    """Remembers what trains, and the model's answer to the first batch."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.batch = loop.batch(0)
        self.start = self._values()
        self.first, self.again = self._answer(), self._answer()

    def look(self) -> alarm.Changed:
        """What is different now."""
        return alarm.compare(self.start, self._values(), (self.first, self.again, self._answer()))

    def _values(self) -> dict[str, torch.Tensor]:
        return {name: whole(parameter).clone() for name, parameter in self.loop.run.trained}

    @torch.no_grad()
    def _answer(self) -> torch.Tensor:
        return self.loop.predict(self.batch).float().cpu()
