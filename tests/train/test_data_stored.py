"""Tensors in files: a row read is the row written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from modelgrow.surgery import OutputError
from modelgrow.train.data.encode import to_pixels
from modelgrow.train.data.media import Media
from modelgrow.train.data.stored import Stored, without_zeros, write


def test_pixels_by_hand() -> None:
    frames = torch.tensor([0, 127, 255, 51, 204, 102], dtype=torch.uint8).view(1, 1, 2, 3)
    assert torch.equal(
        to_pixels(frames.numpy()),
        (torch.tensor([[0.0, 51], [127, 204], [255, 102]]) / 127.5 - 1).view(3, 1, 1, 2),
    )


def test_a_digest_has_both_ends_and_the_size(tmp_path: Path) -> None:
    data = bytes(20_000)
    contents = (data, data + b"\0", b"1" + data[1:], data[:-1] + b"1", data[:4095] + b"1" + data[4096:])
    digests = []
    for number, content in enumerate(contents):
        path = tmp_path / str(number)
        path.write_bytes(content)
        digests.append(Media(path=path, nbytes=len(content)).digest())
    assert len(set(digests)) == 5
    inside = tmp_path / "inside"
    inside.write_bytes(b"before" + contents[3] + b"behind")
    assert Media(path=inside, offset=6, nbytes=20_000).digest() == digests[3]


def test_zeros_at_the_end_cost_nothing_and_come_back(tmp_path: Path) -> None:
    states = torch.zeros(2, 512, 4, dtype=torch.bfloat16)
    states[0, :3] = 1
    states[1, 5, 2] = -0.0
    tensors = {
        "states": states,
        "mask": (states != 0)[..., 0],
        "count": torch.tensor([3, 1]),
        "zeros": torch.zeros(2, 9),
        "full": torch.ones(2, 9, dtype=torch.float16),
    }
    assert {name: tuple(without_zeros(tensor).shape) for name, tensor in tensors.items()} == {
        "states": (2, 6, 4),
        "mask": (2, 3),
        "count": (2,),
        "zeros": (2, 1),
        "full": (2, 9),
    }
    path = tmp_path / "a.safetensors"
    write(path, tensors, {"a": [1]})
    assert path.stat().st_size < 1000 < states.nbytes
    stored = Stored(path)
    assert stored.about == {"a": [1]}
    for name, tensor in tensors.items():
        assert stored.shape(name) == tuple(tensor.shape[1:])
        for row in range(2):
            found = stored.row(name, row)
            assert found.dtype == tensor.dtype
            assert torch.equal(found.signbit(), tensor[row].signbit())
            assert torch.equal(found, tensor[row])


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path, tensors = tmp_path / "a.safetensors", {"a": torch.ones(1, 2)}
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"a\.safetensors: the disk is full"):
            write(path, tensors, {})
    assert list(tmp_path.iterdir()) == []
    write(path, tensors, {})
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
