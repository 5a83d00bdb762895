"""Output under its final name is complete, or absent: it is made beside it and moved there at the end."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .disk import as_output_error, check_room, sync_folder
from .errors import OutputError
from .leftovers import NEW, OLD, partial_folder, remove_leftovers
from .signals import deferred_signals, exits_on_signals
from .swap import swap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def staged(output: Path, *, inputs: Sequence[Path], num_bytes: int = 0, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder; when the block ends well, it becomes `output`; otherwise it is removed.

    Both are on the same disk. What earlier runs for the same output left when they were killed is
    removed first. In the main thread SIGTERM and SIGHUP end the block as an exit does, so that
    nothing is left; SIGKILL leaves a hidden folder `.NAME.partial-...` for the next run.

    Args:
        output: The final folder. It must not exist, unless `overwrite`.
        inputs: Folders and files that are being read, which the output must not touch.
        num_bytes: What will be written at most; a disk without that much room is refused at once.
        overwrite: Replace what is there, in one step where the system can.

    Raises:
        OutputError: It exists, is one of the inputs or inside one, or there is no room.
    """
    with _place(output, inputs, num_bytes, overwrite) as place:
        try:
            place.mkdir()
        except OSError as error:
            raise as_output_error(error, output) from error
        yield place


@contextmanager
def staged_file(output: Path, *, inputs: Sequence[Path], num_bytes: int = 0, overwrite: bool = False) -> Iterator[Path]:
    """`staged` for an output that is one file: yields the path to create it at."""
    with _place(output, inputs, num_bytes, overwrite) as place:
        yield place


@contextmanager
def _place(output: Path, inputs: Sequence[Path], num_bytes: int, overwrite: bool) -> Iterator[Path]:
    with exits_on_signals(), ExitStack() as stack:
        try:
            remove_leftovers(output)
            check_output(output, inputs=inputs, overwrite=overwrite)
            with deferred_signals():  # a signal between making a folder and noting it would leave it there
                missing = [parent for parent in output.parents if not parent.exists()]
                stack.callback(_remove_empty, missing)
                _make(missing)
                check_room(output, num_bytes)
                work = stack.enter_context(partial_folder(output))
        except OutputError:
            raise
        except OSError as error:
            raise as_output_error(error, output) from error
        yield work / NEW
        try:
            _publish(work, output, overwrite)
        except OSError as error:
            raise as_output_error(error, output) from error


def check_output(output: Path, *, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse an output that would lose something. Raises `OutputError`."""
    final = output.resolve()
    for source in inputs:
        place = source.resolve()
        if final == place or final.is_relative_to(place) or place.is_relative_to(final):
            raise OutputError(f"{output}: is, holds or lies in the input {source}, which is never written to. Use -o")
    if os.path.lexists(output) and not overwrite:
        raise OutputError(f"{output}: exists already. Choose another name with -o, or say --overwrite")
    if output.is_dir() and any(Path(place).resolve().is_relative_to(final) for place in (".", os.path.expanduser("~"))):
        raise OutputError(f"{output}: holds the folder where you work, or your own, which --overwrite would replace")


def _make(folders: list[Path]) -> None:
    for folder in reversed(folders):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _publish(work: Path, output: Path, overwrite: bool) -> None:
    new, old = work / NEW, work / OLD
    for folder, _, _ in os.walk(new):
        sync_folder(Path(folder))
    if not os.path.lexists(output):
        new.rename(output)
    elif not overwrite:
        raise FileExistsError(errno.EEXIST, "somebody else has made it in the meantime")
    elif not swap(new, output):
        output.rename(old)  # put back by `partial_folder` if the next step does not happen
        new.rename(output)
    sync_folder(output.parent)
