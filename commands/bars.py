"""A bar of bytes on stderr."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from .console import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def moving_bytes(total: int) -> Iterator[Callable[[int], None]]:
    """Moved by calls of the bytes done since the last call."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("writing and comparing", total=total)
        yield lambda count: progress.advance(task, count)
