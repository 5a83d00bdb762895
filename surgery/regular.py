"""Files that come from outside are opened with care: only regular ones, only as much as was agreed, and only here.

A folder, a pipe or a device in a file's place is refused and never waited for. Links are followed
inside a checkpoint's folder and into the Hub cache that it belongs to, and nowhere else.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CheckpointError, GrowError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[int, int]]:
    """Open a file and give its descriptor and its size in bytes.

    Raises:
        CheckpointError: It is not there, can't be read, or is not a regular file.
    """
    try:
        _check_kind(path, os.stat(path).st_mode)
        # Should it become a pipe at this moment, O_NONBLOCK does not wait for somebody to write to it.
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except GrowError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _unreadable(path, error) from error
    try:
        status = os.fstat(number)
        _check_kind(path, status.st_mode)
        yield number, status.st_size
    except GrowError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(number)


def read_regular(path: Path, *, limit: int) -> bytes:
    """All of a file of at most `limit` bytes. Raises `CheckpointError` as `open_regular` does, or if it is larger."""
    with open_regular(path) as (number, size):
        if size > limit:
            raise CheckpointError(f"{path}: {size} bytes long; expected at most {limit}. It is not what its name says")
        return read_at(number, 0, size, path)


def read_at(number: int, start: int, count: int, path: Path) -> bytes:
    """`count` bytes of an open file. Raises `CheckpointError` if it ends before, and `OSError`."""
    data = os.pread(number, count, start)
    if len(data) != count:
        raise CheckpointError(f"{path}: became shorter while it was read. Is it still being written?")
    return data


def names_in(folder: Path) -> list[str]:
    """Names of what is in a folder, sorted. Raises `SourceError` if it can't be listed."""
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(f"{folder}: can't be listed: {reason}") from error


def check_link(path: Path, folder: Path) -> None:
    """Check where a link leads; what is no link is right. Its folder stands at any depth in `folder`.

    Raises:
        CheckpointError: Out of `folder` and of the Hub cache that it belongs to, or nowhere.
    """
    if not os.path.islink(path):
        return
    try:
        target, home = path.resolve(strict=True), folder.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: a link that leads nowhere. Download the file again") from error
    if target.is_relative_to(home):
        return
    blobs = target.parent
    if blobs.name == "blobs" and (
        home.is_relative_to(blobs.parent / "snapshots") or blobs.parent.name.startswith("models--")
    ):
        return
    raise CheckpointError(
        f"{path}: links out of its folder, to {target}. Only links inside the folder and into the Hub cache are "
        "followed: name the real folder, or copy what the link leads to"
    )


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise CheckpointError(f"{path}: not a regular file but {kind}. Remove it, or name the right file")


def _unreadable(path: Path, error: OSError | ValueError) -> CheckpointError:
    return CheckpointError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}")
