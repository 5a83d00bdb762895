"""What a run says of the disk, and what it then takes; a disk that is full all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from safetensors.torch import save_file
from tiny_runs import settings

from modelgrow.surgery import TrainError
from modelgrow.train import checkpoints
from modelgrow.train.room import Room, room_of
from modelgrow.train.run import train
from modelgrow.train.setup import set_up


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def test_a_run_takes_what_it_said(grown: Path, tmp_path: Path) -> None:
    """Headers come on top; here, where tensors are tiny, they are a third."""
    chosen = settings(grown, tmp_path / "run", steps=2, ema_decay=0.9)
    room = room_of(set_up(chosen, lambda _: None))
    said: list[str] = []
    train(chosen, announce=said.append)
    assert any(line.startswith("on disk: the result ") for line in said)
    model = sum(bytes_in(tmp_path / "run" / name) for name in ("model", "growth"))
    checkpoint = bytes_in(tmp_path / "run" / "checkpoints")
    assert room.checkpoints == chosen.keep + 2
    for predicted, found in ((room.model, model), (room.checkpoint, checkpoint)):
        assert 0.6 * found < predicted <= found


def test_room_in_words() -> None:
    enough = Room(model=3_000_000_000, checkpoint=500_000_000, checkpoints=4, free=5_000_000_000)
    assert enough.sentence == "on disk: the result 3 GB, up to 4 checkpoints of 500 MB; 5 GB are free"
    short = Room(model=3_000_000_000, checkpoint=500_000_000, checkpoints=4, free=4_900_000_000)
    assert short.sentence.endswith("; 4.9 GB are free, which is too little: make room before the run ends")


def test_a_full_disk(grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint before it stays, nothing half-written does, and the same run goes on when there is room."""
    chosen = settings(grown, tmp_path / "run", steps=2, save_every=1)
    place = tmp_path / "run" / "checkpoints"

    def full(tensors: Any, path: Path) -> None:
        save_file(tensors, path)
        if "00000002" in str(path) and path.name == "optimizer.safetensors":
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save_file", full)
        with pytest.raises(TrainError, match=r"step-00000002: can't be written: .*No space left on device"):
            train(chosen)
    assert [path.name for path in place.iterdir()] == ["step-00000001"]
    assert train(chosen).steps == 2
