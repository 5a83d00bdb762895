"""Runs of seconds: a tiny grown pipeline, the small world, a few steps; on one process or several."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from growths import grow
from tiny_pipelines import save_tiny_wan

from modelgrow.surgery import Checkpoint, Record, open_checkpoint
from modelgrow.surgery.readback import read_chunks
from modelgrow.train import checkpoints
from modelgrow.train.result import Result
from modelgrow.train.settings import Settings, read_settings

SMALL: dict[str, Any] = {
    "data": "shapes:2-3:8",
    "num_frames": 5,
    "height": 32,
    "width": 32,
    "steps": 6,
    "batch_size": 2,
    "learning_rate": 1e-2,
    "warmup_steps": 1,
    "tracker": "none",
    "alarm_after": 2,
}


def grow_tiny_wan(folder: Path) -> Path:
    """`folder/base` and, returned, `folder/grown`, with one block more at its end."""
    base = save_tiny_wan(folder / "base")
    return grow(base, folder / "grown", mode="suffix", blocks=1)


def settings(model: Path, output: Path, **changes: Any) -> Settings:
    return read_settings(None, {**SMALL, "model": str(model), "output": str(output), **changes})


def data(checkpoint: Checkpoint, name: str) -> bytes:
    return b"".join(read_chunks(checkpoint.tensors[name]))


def bytes_of(model: Path) -> dict[str, bytes]:
    return tensors(model / "transformer")


def tensors(folder: Path) -> dict[str, bytes]:
    """Of a component."""
    checkpoint = open_checkpoint(folder)
    return {name: data(checkpoint, name) for name in checkpoint.tensors}


def record_of(model: Path) -> Record:
    """Of the transformer, which has one."""
    record = open_checkpoint(model / "transformer").record
    assert record is not None
    return record


def differing(one: Path, other: Path) -> set[str]:
    """The transformers' tensors that are not the same in two models."""
    before, after = bytes_of(one), bytes_of(other)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def check_only_new_moved(before: Path, result: Result) -> None:
    """A run trained what is new in its model, and nothing else."""
    record, moved = record_of(result.model), differing(before, result.model)
    assert record.steps[-1].operation == "train"
    assert moved
    assert moved <= set(record.new)
    assert result.changed is not None
    assert result.changed.moved > 0


def floats(values: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(values), dtype=torch.float32)


def same_checkpoint(one: Path, other: Path, step: int) -> None:
    """Two runs' checkpoints of a step hold the same, but for how floats were added up."""
    states = [checkpoints.load(run / "checkpoints" / f"step-{step:08d}") for run in (one, other)]
    assert abs(states[0].best_loss - states[1].best_loss) <= 1e-4 * abs(states[0].best_loss)
    for name in states[0].trained:
        torch.testing.assert_close(states[1].trained[name], states[0].trained[name], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(states[1].ema[name], states[0].ema[name], rtol=1e-3, atol=1e-5)


def same_model(one: Path, other: Path, *, unlike: Path) -> None:
    """Two runs' models hold the same, what is frozen byte for byte, and both another than before."""
    record, found = record_of(one), bytes_of(other)
    for name, value in bytes_of(one).items():
        if name in record.new:
            torch.testing.assert_close(floats(found[name]), floats(value), rtol=1e-3, atol=1e-5)
        else:
            assert found[name] == value
    assert found != bytes_of(unlike)


def launch(chosen: Settings, *, processes: int, script: str | None = None, cpu: bool = True) -> None:
    """`grow train` on several processes of this machine, set up as `accelerate launch` and torchrun do it.

    `script`: Python to run instead; it gets the path of the settings. `cpu`: accelerate is told to stay on the CPU,
    which also keeps it from DeepSpeed.
    """
    toml = Path(chosen.output).with_suffix(".toml")
    toml.write_text(chosen.to_toml(), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-P", "-m", "modelgrow.cli", "train", "--config", str(toml)]
    if script is not None:
        command = [sys.executable, "-P", "-c", script, str(toml)]
    common = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": str(cpu).lower(),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    running = [
        subprocess.Popen(command, env={**common, **rank}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in ranks
    ]
    try:
        said = [process.communicate(timeout=180)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    for process, text in zip(running, said, strict=True):
        assert process.returncode == 0, text[-4000:]
