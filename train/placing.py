"""Where a pipeline's parts lie: what reads clips and captions on the device while they are encoded, then the model
that trains, the others in main memory. Preview clips are made by all of them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils.memory import clear_device_cache

from modelgrow.pipelines.memory import DENOISERS

from .quantize import model_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .families.family import Family

CPU = torch.device("cpu")


def called(family: Family) -> tuple[str, ...]:
    """The components that a family's `predict` calls besides the model."""
    names: tuple[str, ...] = getattr(family, "CALLED", ())
    return names


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The components of a pipeline with weights."""

    pipeline: Any
    trained: str
    """The component that trains."""
    called: tuple[str, ...]
    """Those that a step calls besides."""
    device: torch.device

    @property
    def model(self) -> Any:
        """Of the component that trains."""
        return getattr(self.pipeline, self.trained)

    def place_encoders(self) -> None:
        """Everything but what denoises goes to the device."""
        waiting = {*DENOISERS, self.trained, *self.called}
        self._move([name for name in self._names if name not in waiting], self.device)
        if self.pipeline._execution_device.type != self.device.type:  # some pipelines go by their transformer
            self._move(self._names, self.device)

    def place_model(self, *, split: bool) -> None:
        """What a step calls goes to the device, the others leave it.

        A model that is to be split stays where it is: its parts are sent where they belong.
        """
        self._rest()
        self._move([*self.called, *([] if split else [self.trained])], self.device)

    @property
    def called_bytes(self) -> int:
        """Of what a step calls besides the model, on every process."""
        return sum(model_bytes(getattr(self.pipeline, name)) for name in self.called)

    @contextmanager
    def all_placed(self) -> Iterator[None]:
        """Inside, everything is on the device."""
        before = next(self.model.parameters()).device  # the CPU, if not split yet
        self._move(self._names, self.device)
        try:
            yield
        finally:
            self._rest()
            self._move([self.trained], before)

    def _rest(self) -> None:
        stepping = {self.trained, *self.called}
        self._move([name for name in self._names if name not in stepping], CPU)
        clear_device_cache(garbage_collection=True)

    @property
    def _names(self) -> list[str]:
        return [name for name, part in self.pipeline.components.items() if isinstance(part, torch.nn.Module)]

    def _move(self, names: Iterable[str], device: torch.device) -> None:
        for name in names:
            part = getattr(self.pipeline, name)
            held = next(part.parameters(), None)
            # Cosmos' safety checker has no parameters, and moves models that it holds apart.
            if held is None or held.device.type != device.type:  # the CPU, or this process's own device
                part.to(device)
