"""`pytest -p pretend_plugin tests/train`: the tests' training runs on a device that is none, see `pretend_device`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from pretend_device import DEVICE, pretending

from modelgrow.train import engine, memory, quantize, setup
from modelgrow.train.settings import Settings


@pytest.fixture(autouse=True)
def _on_the_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Accelerate says that this is the device, so that runs train there, in full precision."""
    own = engine.make_accelerator

    def make(settings: Settings) -> Accelerator:
        accelerator = own(settings)
        for state in (accelerator.state, PartialState()):
            state.device = DEVICE
        accelerator.device_placement = False  # a parameter that accelerate moves would become another object here
        return accelerator

    monkeypatch.setattr(setup, "make_accelerator", make)
    for module in (quantize, memory):  # which take any class of parameters but torch's own for quantized ones
        monkeypatch.setattr(module, "is_quantized", lambda tensor: False)
    AcceleratorState._reset_state(reset_partial_state=True)
    with pretending():
        yield
    AcceleratorState._reset_state(reset_partial_state=True)
