"""`pytest -p half_plugin tests/train`: the tests' training runs with weights and arithmetic in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState

from modelgrow.train import engine, setup


@pytest.fixture(autouse=True)
def _in_halves(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(setup, "resolve_dtype", lambda name, device: torch.bfloat16)
    monkeypatch.setattr(engine, "precision_of", lambda settings: "bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
