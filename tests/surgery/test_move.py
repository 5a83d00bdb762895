"""Bytes between files: every way gives the same bytes, and a way that is refused gives way to the next."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelgrow.surgery import CheckpointError
from modelgrow.surgery import move as move_module
from modelgrow.surgery.move import BLOCK, Mover, can_clone, read_into, write_at
from modelgrow.surgery.readback import is_hole

REFUSALS = [errno.EXDEV, errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP]
SIZE = 3 * move_module.CHUNK + 1234


@contextmanager
def opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[int]:
    number = os.open(path, flags)
    try:
        yield number
    finally:
        os.close(number)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(SIZE))
    return path


def moved(source: Path, start: int, position: int, count: int, mover: Mover | None = None) -> bytes:
    target = source.with_name("target")
    with opened(source, os.O_RDONLY) as reader, opened(target) as writer:
        (mover or Mover()).move(reader, start, writer, position, count)
    return target.read_bytes()


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> list[int]:
    """Make a system call fail; the list has an entry for each call."""
    calls: list[int] = []

    def call(*args: object) -> int:
        calls.append(number)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, call)
    return calls


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("refused", [(), ("copy_file_range",), ("copy_file_range", "sendfile")])
def test_every_way_gives_the_same_bytes(
    source: Path, monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...], number: int
) -> None:
    calls = {name: refuse(monkeypatch, name, number) for name in refused}
    assert moved(source, 77, 5, SIZE - 100) == bytes(5) + source.read_bytes()[77 : SIZE - 23]
    assert all(len(made) == 1 for made in calls.values())  # asked once, not once for each chunk


def test_a_system_without_copy_file_range(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "copy_file_range")
    assert moved(source, 0, 0, SIZE) == source.read_bytes()


@pytest.mark.parametrize("name", ["copy_file_range", "sendfile"])
def test_a_call_that_moves_nothing_gives_way(source: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Some filesystems answer 0 in the middle of a file instead of refusing."""
    if name == "sendfile":
        refuse(monkeypatch, "copy_file_range", errno.EXDEV)
    monkeypatch.setattr(os, name, lambda *args: 0)
    assert moved(source, 1, 0, SIZE - 1) == source.read_bytes()[1:]


def test_short_calls_are_finished(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., int] = os.copy_file_range
    monkeypatch.setattr(os, "copy_file_range", lambda a, b, count, *rest: real(a, b, min(count, 1000003), *rest))
    assert moved(source, 0, 0, SIZE) == source.read_bytes()


@pytest.mark.parametrize("name", ["pwrite", "preadv"])
def test_short_writes_and_reads_are_finished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data = source.read_bytes()
    if name == "pwrite":
        write: Callable[..., int] = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda file, view, start: write(file, view[:4099], start))
        with opened(tmp_path / "target") as file:
            write_at(file, data[:50000], 3)
        assert (tmp_path / "target").read_bytes() == bytes(3) + data[:50000]
    else:
        read: Callable[..., int] = os.preadv
        monkeypatch.setattr(os, "preadv", lambda file, views, start: read(file, [views[0][:4099]], start))
        buffer = bytearray(50000)
        with opened(source, os.O_RDONLY) as file:
            read_into(file, memoryview(buffer), 7)
        assert buffer == data[7:50007]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_other_errors_are_not_refusals(source: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    refuse(monkeypatch, "copy_file_range", number)
    with pytest.raises(OSError, match=os.strerror(number)):
        moved(source, 0, 0, SIZE)


def test_the_last_way_has_no_other(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("copy_file_range", "sendfile", "pwrite"):
        refuse(monkeypatch, name, errno.EINVAL)
    with pytest.raises(OSError, match="Invalid argument"):
        moved(source, 0, 0, SIZE)


@pytest.mark.parametrize("refused", [(), ("copy_file_range",), ("copy_file_range", "sendfile")])
def test_a_source_that_ends_early(source: Path, monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]) -> None:
    for name in refused:
        refuse(monkeypatch, name, errno.EXDEV)
    with pytest.raises(CheckpointError, match="became shorter"):
        moved(source, 10, 0, SIZE)
    with opened(source, os.O_RDONLY) as file, pytest.raises(CheckpointError, match="became shorter"):
        read_into(file, memoryview(bytearray(11)), SIZE - 10)


class TestClone:
    def test_the_request_is_the_kernels(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """struct file_clone_range { __s64 src_fd; __u64 src_offset, src_length, dest_offset; }, by hand."""
        seen: list[tuple[int, int, bytes]] = []
        monkeypatch.setattr("fcntl.ioctl", lambda *args: seen.append(args))
        assert Mover().clone(5, 2 * BLOCK, 6, BLOCK, 3 * BLOCK)
        numbers = [5, 2 * 4096, 3 * 4096, 4096]
        assert seen == [(6, 0x4020940D, b"".join(number.to_bytes(8, "little") for number in numbers))]

    def test_a_refusal_is_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[object] = []

        def call(*args: object) -> None:
            calls.append(args)
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr("fcntl.ioctl", call)
        mover = Mover()
        assert not mover.clone(5, 0, 6, 0, BLOCK)
        assert not mover.clone(5, 0, 6, 0, BLOCK)
        assert len(calls) == 1

    def test_a_full_disk_is_no_refusal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def call(*args: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("fcntl.ioctl", call)
        with pytest.raises(OSError, match="No space"):
            Mover().clone(5, 0, 6, 0, BLOCK)

    def test_what_can_clone_is_tried_not_guessed(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = sorted(tmp_path.iterdir())
        answers: list[bool] = []
        for error in (None, errno.EXDEV):

            def call(*args: object, error: int | None = error) -> None:
                if error:
                    raise OSError(error, os.strerror(error))

            monkeypatch.setattr("fcntl.ioctl", call)
            answers.append(can_clone(source, tmp_path))
        assert answers == [True, False]
        assert sorted(tmp_path.iterdir()) == before


def test_holes_are_told_from_data(tmp_path: Path) -> None:
    with opened(tmp_path / "file") as file:
        os.ftruncate(file, 64 * BLOCK)
        os.pwrite(file, b"x", 20 * BLOCK + 17)
        if not is_hole(file, 0, 20 * BLOCK):
            pytest.skip("this filesystem does not tell of holes")
        assert is_hole(file, 5, 20 * BLOCK)
        assert not is_hole(file, 0, 20 * BLOCK + 18)
        assert not is_hole(file, 20 * BLOCK, 20 * BLOCK + 17)
        assert is_hole(file, 21 * BLOCK, 64 * BLOCK)
        assert not is_hole(file, 21 * BLOCK, 64 * BLOCK + 1)


def test_a_filesystem_that_knows_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "lseek", errno.EINVAL)
    with opened(tmp_path / "file") as file:
        assert not is_hole(file, 0, BLOCK)
