"""Output under its final name is complete, or absent: it is made beside it and moved there at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .apply import as_output_error
from .errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@contextmanager
def staged(output: Path, *, inputs: Sequence[Path], num_bytes: int, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder; when the block ends well, it becomes `output`; otherwise it is removed.

    Args:
        output: The final folder. It must not exist, unless `overwrite`.
        inputs: Folders and files that are being read, which the output must not touch.
        num_bytes: What will be written at most; a disk without that much room is refused at once.

    Raises:
        OutputError: It exists, is one of the inputs or inside one, or there is no room.
    """
    check_output(output, inputs=inputs, overwrite=overwrite)
    parents = _make_parents(output.parent)
    try:
        _check_room(output, num_bytes)
        work = _work_folder(output)
        try:
            yield work
            _publish(work, output)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        for parent in parents:
            if not any(parent.iterdir()):
                parent.rmdir()


def check_output(output: Path, *, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse an output that would lose something. Raises `OutputError`."""
    final = output.resolve()
    for source in inputs:
        place = source.resolve()
        if final == place or final.is_relative_to(place) or place.is_relative_to(final):
            raise OutputError(f"{output}: is, holds or lies in the input {source}, which is never written to. Use -o")
    if (output.exists() or output.is_symlink()) and not overwrite:
        raise OutputError(f"{output}: exists already. Choose another name with -o, or say --overwrite")


def _make_parents(folder: Path) -> list[Path]:
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_output_error(error, folder) from error
    return missing


def _check_room(output: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(output.parent).free
    if free < num_bytes:
        raise OutputError(
            f"{output}: needs {num_bytes / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free. "
            "Choose another disk with -o"
        )


def _work_folder(output: Path) -> Path:
    from pathlib import Path

    try:
        work = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
        work.chmod(0o777 & ~_umask())  # mkdtemp's 0700 would hide the result from everybody else
    except OSError as error:
        raise as_output_error(error, output) from error
    return work


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _publish(work: Path, output: Path) -> None:
    try:
        if output.exists() or output.is_symlink():
            old = work.with_name(work.name + "-old")
            output.rename(old)
            work.rename(output)
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink()
        else:
            work.rename(output)
        folder = os.open(output.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise as_output_error(error, output) from error
