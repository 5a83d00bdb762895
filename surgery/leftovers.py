"""Folders that output is made in, beside its final place, and what a killed run leaves of them.

A run works in `.NAME.partial-xxxxxxxx` and holds a lock on the file `lock` in it. The system lets go
of the lock however the run ends, so a folder whose lock can be had is one that nobody works in.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NEW = "output"
"""What becomes the output."""
OLD = "replaced"
"""The output that was there before, until the new one has its place."""
_LOCK = "lock"


@contextmanager
def partial_folder(output: Path) -> Iterator[Path]:
    """A new folder beside `output`, locked, removed at the end. Raises `OSError`."""
    folder, lock = _make(output)
    try:
        yield folder
    finally:
        _remove(folder, output)
        os.close(lock)


def remove_leftovers(output: Path) -> None:
    """Remove what killed runs for the same output have left. Raises `OSError`.

    A run that replaced an output may have been killed when the old one had gone from its place and
    the new one had not come: the old one is put back.
    """
    pattern = re.compile(re.escape(_prefix(output)) + "[a-z0-9_]{8}")
    for folder in output.parent.iterdir() if output.parent.is_dir() else ():
        if not pattern.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue
        try:
            lock = _open_lock(folder)
        except OSError:
            continue  # somebody else's, or just gone
        try:
            if _take(lock, folder) is _Lock.OURS:
                _remove(folder, output)
        finally:
            os.close(lock)


def _remove(folder: Path, output: Path) -> None:
    old = folder / OLD
    if os.path.lexists(old) and not os.path.lexists(output):
        old.rename(output)
    shutil.rmtree(folder, ignore_errors=True)


def _prefix(output: Path) -> str:
    return f".{output.name}.partial-"


def _make(output: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(output), dir=output.parent))
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                lock = _open_lock(folder)
            except FileNotFoundError:
                continue  # another run cleaned it away in the moment before it was locked
            stack.callback(os.close, lock)
            if _take(lock, folder) is not _Lock.TAKEN:
                stack.pop_all()
                return folder, lock


def _open_lock(folder: Path) -> int:
    return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


class _Lock(Enum):
    """What came of asking for one."""

    OURS = 1
    TAKEN = 2
    UNKNOWN = 3
    """This filesystem has no locks, so nobody can tell; such a folder is never removed."""


def _take(lock: int, folder: Path) -> _Lock:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there = os.stat(folder / _LOCK)
    except (BlockingIOError, FileNotFoundError):
        return _Lock.TAKEN
    except OSError:
        return _Lock.UNKNOWN
    return _Lock.OURS if os.path.samestat(there, os.fstat(lock)) else _Lock.TAKEN
