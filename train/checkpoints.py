"""Checkpoints of a run: the trained parameters, the optimizer and the step. Small, complete or absent, no pickle."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from modelgrow.surgery import TrainError

_NAME = re.compile(r"step-([0-9]{8})")


@dataclass(frozen=True, kw_only=True)
class State:
    """What a run needs to go on."""

    step: int
    trained: dict[str, torch.Tensor]
    """Parameters by name, float32."""
    optimizer: dict[str, Any]
    """`torch.optim.Optimizer.state_dict()`."""
    ema: dict[str, torch.Tensor]
    """Averaged parameters by name; empty without EMA."""
    best_loss: float
    best_step: int
    average: float | None
    """The running loss that is shown."""
    first_loss: float | None = None
    seconds: float = 0.0
    """Spent on training so far."""


def save(folder: Path, state: State) -> Path:
    """Write a checkpoint beside its final name and move it there. Raises `TrainError` if it can't be written."""
    final = folder / f"step-{state.step:08d}"
    work = folder / f".{final.name}.partial"
    shutil.rmtree(work, ignore_errors=True)
    try:
        _write(work, state)
    except (SafetensorError, OSError) as error:  # of a full disk safetensors has an error of its own
        shutil.rmtree(work, ignore_errors=True)
        raise TrainError(
            f"{final}: can't be written: {error}. Checkpoints before it stay; where the disk is full, make room, and "
            "the same command goes on from the last one"
        ) from error
    shutil.rmtree(final, ignore_errors=True)
    work.rename(final)
    return final


def _write(work: Path, state: State) -> None:
    """All of a checkpoint, durably."""
    work.mkdir(parents=True)
    tensors, rest = _split(state.optimizer)
    save_file({name: t.contiguous() for name, t in state.trained.items()}, work / "trained.safetensors")
    save_file(tensors, work / "optimizer.safetensors")
    if state.ema:
        save_file({name: t.contiguous() for name, t in state.ema.items()}, work / "ema.safetensors")
    told = {
        "step": state.step,
        "best_loss": state.best_loss,
        "best_step": state.best_step,
        "average": state.average,
        "first_loss": state.first_loss,
        "seconds": state.seconds,
        "optimizer": rest,
    }
    (work / "state.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    for path in work.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def load(path: Path) -> State:
    """Read a checkpoint. Raises `TrainError` if it is damaged."""
    try:
        told = json.loads((path / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(path / "optimizer.safetensors")
        ema = path / "ema.safetensors"
        return State(
            step=int(told["step"]),
            trained=load_file(path / "trained.safetensors"),
            optimizer=_join(tensors, told["optimizer"]),
            ema=load_file(ema) if ema.exists() else {},
            best_loss=float(told["best_loss"]),
            best_step=int(told["best_step"]),
            average=told["average"],
            first_loss=told.get("first_loss"),
            seconds=float(told.get("seconds", 0.0)),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise TrainError(
            f"{path}: this checkpoint can't be read: {error}. Remove it to go on from the one before"
        ) from error


def all_of(folder: Path) -> list[Path]:
    """Complete checkpoints, the oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name) and (path / "state.json").is_file())


def prune(folder: Path, *, keep: int, best: int) -> None:
    """Remove all but the last `keep` and the one of step `best`, and what a kill left half-written."""
    for path in folder.glob(".step-*.partial"):
        shutil.rmtree(path, ignore_errors=True)
    for path in all_of(folder)[:-keep]:
        if path.name != f"step-{best:08d}":
            shutil.rmtree(path)


def _split(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimizer's state as tensors by name, and what is left as JSON."""
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for number, values in state["state"].items():
        for key, value in _flat(values):
            if isinstance(value, torch.Tensor):
                # In memory of its own, for several rows may hold the same tensor and a file may not.
                tensors[f"{number}.{key}"] = torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
            else:
                plain.setdefault(str(number), {})[key] = value
    return tensors, {"plain": plain, "param_groups": state["param_groups"]}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """bitsandbytes keeps tables within tables; their keys are joined by dots."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _join(tensors: dict[str, torch.Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    plain = ((f"{number}.{key}", value) for number, values in rest["plain"].items() for key, value in values.items())
    for name, value in (*plain, *tensors.items()):
        number, *above, key = name.split(".")
        place = state.setdefault(int(number), {})
        for part in above:
            place = place.setdefault(part, {})
        place[key] = value
    return {"state": state, "param_groups": rest["param_groups"]}
