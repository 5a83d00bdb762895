"""Bytes from one file to another, moved inside the kernel where it will do that.

In order of preference: a clone, which shares the blocks on disk and moves nothing (XFS, btrfs);
copy_file_range(2); sendfile(2); and reading and writing through memory, which every system can.
What a filesystem, a kernel or a sandbox refuses is not tried again by the same `Mover`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from .errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 4096
"""Clones begin and end on multiples of this: the block size of XFS and btrfs unless made otherwise, in bytes."""
CHUNK = 256 << 10
"""What passes through memory at once, in bytes."""

_FICLONERANGE = 0x4020940D  # _IOW(0x94, 13, struct file_clone_range), linux/fs.h
_REFUSALS = frozenset(
    {
        errno.EXDEV,  # two filesystems
        errno.EPERM,  # a sandbox
        errno.EACCES,
        errno.EINVAL,
        errno.ENOSYS,
        errno.EOPNOTSUPP,
        errno.ENOTTY,  # a filesystem that knows no such ioctl
        errno.ENOTSOCK,  # sendfile, where it writes only to sockets
        errno.EBADF,
        errno.ETXTBSY,
    }
)

Way = Callable[[int, int, int, int, int], int]
"""(reader, start, writer, position, count) -> how many bytes it moved, 0 for none."""


class Mover:
    """Moves ranges between open files. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._can_clone = True
        self._ways: list[Way] = [_read_and_write, _sendfile]
        if hasattr(os, "copy_file_range"):
            self._ways.append(_copy_file_range)

    def clone(self, reader: int, start: int, writer: int, position: int, count: int) -> bool:
        """Make a range of `writer` share the blocks of a range of `reader`.

        All three numbers are multiples of `BLOCK`. False where the filesystem can't, and nothing was done.
        """
        if not self._can_clone or count == 0:
            return False
        request = struct.pack("qQQQ", reader, start, count, position)
        try:
            fcntl.ioctl(writer, _FICLONERANGE, request)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            self._can_clone = False
            return False
        return True

    def move(self, reader: int, start: int, writer: int, position: int, count: int) -> None:
        """Copy `count` bytes. Raises `CheckpointError` where the reader ends before, and `OSError`."""
        while count:
            way = self._ways[-1]
            try:
                moved = way(reader, start, writer, position, count)
            except OSError as error:
                if error.errno not in _REFUSALS or len(self._ways) == 1:
                    raise
                self._ways.pop()
                continue
            if moved == 0:
                if os.fstat(reader).st_size <= start or len(self._ways) == 1:
                    raise ended()
                self._ways.pop()  # some filesystems answer 0 where they should refuse
                continue
            start, position, count = start + moved, position + moved, count - moved


def can_clone(source: Path, folder: Path) -> bool:
    """Whether files in `folder` can share blocks with `source`: tried with one block. Raises `OSError`."""
    with source.open("rb") as reader, tempfile.TemporaryFile(dir=folder) as writer:
        if os.fstat(reader.fileno()).st_size < BLOCK:
            return False
        return Mover().clone(reader.fileno(), 0, writer.fileno(), 0, BLOCK)


def write_at(writer: int, data: bytes | memoryview, position: int) -> None:
    """All of `data`, however little a call takes. Raises `OSError`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(writer, view, position)
        view, position = view[written:], position + written


def read_into(reader: int, view: memoryview, start: int) -> None:
    """Fill `view`. Raises `CheckpointError` where the file ends before, and `OSError`."""
    while view:
        count = os.preadv(reader, [view], start)
        if count == 0:
            raise ended()
        view, start = view[count:], start + count


def ended() -> CheckpointError:
    """The error for a file that is shorter than it was."""
    return CheckpointError("the input became shorter while it was read; is something else writing to it?")


def _copy_file_range(reader: int, start: int, writer: int, position: int, count: int) -> int:
    return os.copy_file_range(reader, writer, count, start, position)


def _sendfile(reader: int, start: int, writer: int, position: int, count: int) -> int:
    os.lseek(writer, position, os.SEEK_SET)
    return os.sendfile(writer, reader, start, count)


def _read_and_write(reader: int, start: int, writer: int, position: int, count: int) -> int:
    data = os.pread(reader, min(count, CHUNK), start)
    write_at(writer, data, position)
    return len(data)
