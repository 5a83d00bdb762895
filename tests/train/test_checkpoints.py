"""Checkpoints give back what went in, to the bit, and are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modelgrow.surgery import TrainError
from modelgrow.train import checkpoints
from modelgrow.train.checkpoints import State


def trained(steps: int) -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def state(step: int) -> State:
    model, optimizer = trained(3)
    return State(
        step=step,
        trained={name: p.detach() for name, p in model.named_parameters()},
        optimizer=optimizer.state_dict(),
        ema={"weight": torch.full((2, 3), 0.5)},
        best_loss=0.25,
        best_step=step,
        average=0.1 + 0.2,
    )


def test_a_restored_optimizer_goes_on_bit_for_bit(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, state(3))
    found = checkpoints.load(path)
    model, _ = trained(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model.load_state_dict(found.trained)
    optimizer.load_state_dict(found.optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
    expected, _ = trained(5)
    assert torch.equal(model.weight, expected.weight)
    assert not torch.equal(model.weight, trained(4)[0].weight)
    assert (found.step, found.best_loss, found.best_step, found.average) == (3, 0.25, 3, 0.1 + 0.2)
    assert torch.equal(found.ema["weight"], torch.full((2, 3), 0.5))


def test_no_pickle_is_written(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, state(1))
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}


def test_the_last_and_the_best_stay(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        checkpoints.save(tmp_path, state(step))
    (tmp_path / ".step-00000006.partial").mkdir()
    checkpoints.prune(tmp_path, keep=2, best=2)
    assert [path.name for path in checkpoints.all_of(tmp_path)] == [
        "step-00000002",
        "step-00000004",
        "step-00000005",
    ]
    assert not (tmp_path / ".step-00000006.partial").exists()


def test_what_a_kill_left_does_not_count(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, state(1))
    (tmp_path / "step-00000002").mkdir()
    (tmp_path / ".step-00000003.partial").mkdir()
    assert [path.name for path in checkpoints.all_of(tmp_path)] == ["step-00000001"]
    assert checkpoints.all_of(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", ["state.json", "trained.safetensors", "optimizer.safetensors"])
def test_damage_is_named(tmp_path: Path, name: str) -> None:
    path = checkpoints.save(tmp_path, state(1))
    (path / name).write_bytes(b"{")
    with pytest.raises(TrainError, match="step-00000001"):
        checkpoints.load(path)
