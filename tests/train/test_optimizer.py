"""The 8-bit optimizer: what it keeps, that it goes on bit for bit, and what is said without it."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_runs import bytes_of, differing, record_of, settings

from modelgrow.surgery import TrainError
from modelgrow.train import checkpoints
from modelgrow.train.checkpoints import State
from modelgrow.train.memory import state_bytes
from modelgrow.train.optimizer import check_optimizer, make_optimizer
from modelgrow.train.quantize import bytes_of as held
from modelgrow.train.run import train
from modelgrow.train.settings import Settings

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (pip install bitsandbytes)"
)
EIGHT = Settings(model="", data="", output="", optimizer="adamw8bit", learning_rate=1e-2)


def trained(steps: int) -> tuple[torch.nn.Sequential, torch.optim.Optimizer]:
    """Two layers, whose weights have moments in 8 bits, and whose biases are too few for that."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(128, 64), torch.nn.Linear(64, 64))
    optimizer = make_optimizer(list(model.parameters()), EIGHT)
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.linspace(-1, 1, 256).reshape(2, 128)).square().sum().backward()
    optimizer.step()


@needs_bitsandbytes
def test_moments_are_a_byte_each_and_the_prediction_knows() -> None:
    model, optimizer = trained(3)
    kept = [
        {k: v for k, v in optimizer.state[p].items() if k.startswith(("state", "absmax"))} for p in model.parameters()
    ]
    assert [state["state1"].dtype for state in kept] == 2 * [torch.uint8, torch.float32]
    found = [sum(map(held, state.values())) for state in kept]
    assert found == [state_bytes(p.numel(), "adamw8bit") for p in model.parameters()] == [16640, 512, 8320, 512]
    assert state_bytes(8192, "adamw") == 65536


@needs_bitsandbytes
def test_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained(3)
    state = State(
        step=3,
        trained={name: p.detach() for name, p in model.named_parameters()},
        optimizer=optimizer.state_dict(),
        ema={},
        best_loss=0.0,
        best_step=3,
        average=None,
    )
    found = checkpoints.load(checkpoints.save(tmp_path, state))
    model, optimizer = trained(0)
    model.load_state_dict(found.trained)
    optimizer.load_state_dict(found.optimizer)
    for _ in range(2):
        step(model, optimizer)
    expected, _ = trained(5)
    assert all(map(torch.equal, model.parameters(), expected.parameters()))
    forgetful, optimizer = trained(0)
    forgetful.load_state_dict(found.trained)
    for _ in range(2):
        step(forgetful, optimizer)
    assert not any(map(torch.equal, forgetful.parameters(), expected.parameters()))


@needs_bitsandbytes
def test_a_run_with_it_goes_on_bit_for_bit(grown: Path, tmp_path: Path) -> None:
    eight = {"optimizer": "adamw8bit", "ema_decay": 0.5}
    train(settings(grown, tmp_path / "run", steps=2, **eight))
    longer = train(settings(grown, tmp_path / "run", steps=4, **eight))
    whole = train(settings(grown, tmp_path / "whole", steps=4, **eight))
    assert bytes_of(longer.model) == bytes_of(whole.model)
    record = record_of(longer.model)
    assert set(record.zeroed) <= differing(grown, longer.model) <= set(record.new)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(TrainError, match="needs bitsandbytes, which is not installed: pip install bitsandbytes"):
        make_optimizer([torch.nn.Parameter(torch.zeros(1))], EIGHT)


def test_not_where_parameters_are_split() -> None:
    split: Any = SimpleNamespace(is_fsdp2=True)
    with pytest.raises(TrainError, match="adamw8bit with FSDP2"):
        check_optimizer(split, EIGHT)
    check_optimizer(split, replace(EIGHT, optimizer="adamw"))
    whole: Any = SimpleNamespace(is_fsdp2=False)
    check_optimizer(whole, EIGHT)
