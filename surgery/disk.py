"""Small files, folders and free space: what every writer here does with the disk."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

from .errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}


def as_output_error(error: OSError, path: Path) -> OutputError:
    """An operating system's error, in words a user can act on."""
    if error.errno in _FULL:
        return OutputError(f"{path}: the disk is full. Nothing was left there; free some space, or choose another disk")
    return OutputError(f"{path}: can't be written: {error.strerror or error}. Choose another place with -o")


def write_text(path: Path, text: str) -> None:
    """Write a small file durably. Raises `OutputError`."""
    try:
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise as_output_error(error, path) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises `OutputError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_output_error(error, path) from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises `OSError`."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def size(num_bytes: int) -> str:
    """As people say it: "1.4 MB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}"
    return f"{num_bytes} bytes"


def check_room(output: Path, num_bytes: int) -> None:
    """Refuse what will not fit on the disk of `output`, whose parent exists. Raises `OutputError`."""
    free = shutil.disk_usage(output.parent).free
    if free < num_bytes:
        raise OutputError(
            f"{output}: needs {size(num_bytes)}, the disk has {size(free)} free. Choose another disk with -o"
        )
