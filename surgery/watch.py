"""Noticing that an input changes while it is read."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import CheckpointError
from .header import read_header
from .tensor import is_here

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .checkpoint import Checkpoint

Stamp = tuple[int, int, int, int]


@contextmanager
def unchanged(files: Iterable[Path]) -> Iterator[None]:
    """Check at the end of the block that the files are the ones they were, of the same size and time.

    Raises:
        CheckpointError: A file was replaced, written to, cut short or removed.
    """
    before = {path: _stamp(path) for path in dict.fromkeys(files)}
    yield
    for path, stamp in before.items():
        if _stamp(path) != stamp:
            raise CheckpointError(f"{path}: changed while it was read, so nothing was written. Try again")


def check_headers(checkpoint: Checkpoint) -> None:
    """Check that the tensors still lie where they lay when the checkpoint was opened. Raises `CheckpointError`.

    Files that were left on the Hub are not read.
    """
    for path in dict.fromkeys(tensor.file for tensor in checkpoint.tensors.values() if is_here([tensor])):
        expected = {name: tensor for name, tensor in checkpoint.tensors.items() if tensor.file == path}
        if dict(read_header(path).tensors) != expected:
            raise CheckpointError(f"{path}: changed since it was opened. Run the command again")


def _stamp(path: Path) -> Stamp:
    try:
        status = os.stat(path)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read any more: {error.strerror}") from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
