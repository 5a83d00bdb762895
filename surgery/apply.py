"""Carry a plan out: stream bytes from the input's files to new ones, then read them back and compare.

Nothing is loaded. Bytes are moved inside the kernel, which clones them where the filesystem can;
zeros are left as holes. Memory use does not depend on the checkpoint's size.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from . import strict_json
from .checkpoint import CONFIG_NAME, INDEX_SUFFIX
from .errors import CheckpointError, OutputError
from .header import read_header
from .layout import STEM, index_of, lay_out
from .plan import Copy, Values
from .record import RECORD_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from .checkpoint import Checkpoint
    from .header import Tensor
    from .layout import OutputFile
    from .plan import Plan, PlannedTensor
    from .record import Record

CHUNK = 8 << 20
Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call; a byte counts twice, written and compared."""

_NOT_IN_KERNEL = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def apply(plan: Plan, checkpoint: Checkpoint, record: Record, folder: Path, progress: Progress | None = None) -> None:
    """Write a component folder: weights, index, config.json, growth.json.

    Args:
        plan: Validated against `checkpoint`.
        checkpoint: The input. Its files are only read.
        record: What to write to growth.json.
        folder: An existing folder that nobody reads yet; publishing it is the caller's part.
        progress: See `Progress`.

    Raises:
        OutputError: The disk is full or the folder can't be written.
        CheckpointError: The input changed while it was read, or what was written does not read back equal.
    """
    report = progress or (lambda _: None)
    layout = lay_out(plan, checkpoint)
    for file in layout:
        _write_file(folder / file.name, file, checkpoint, report)
    for file in layout:
        _compare_file(folder / file.name, file, checkpoint, report)
    index = index_of(layout)
    if index is not None:
        write_text(folder / (STEM + INDEX_SUFFIX), strict_json.dump(index))
    write_text(folder / CONFIG_NAME, strict_json.dump(plan.new_config(checkpoint.config)))
    write_text(folder / RECORD_NAME, strict_json.dump(record.to_json()))


def write_text(path: Path, text: str) -> None:
    """Write a small file durably. Raises `OutputError`."""
    try:
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise as_output_error(error, path) from error


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes as `apply` copies a tensor's. Raises `OutputError`."""
    try:
        with source.open("rb") as reader, target.open("xb") as writer:
            _move(reader.fileno(), 0, writer.fileno(), 0, os.fstat(reader.fileno()).st_size)
            os.fsync(writer.fileno())
    except OSError as error:
        raise as_output_error(error, target) from error


def as_output_error(error: OSError, path: Path) -> OutputError:
    """An operating system's error, in words a user can act on."""
    if error.errno in _FULL:
        return OutputError(f"{path}: the disk is full. Nothing was left there; free some space, or choose another disk")
    return OutputError(f"{path}: can't be written: {error.strerror or error}")


def _write_file(path: Path, file: OutputFile, checkpoint: Checkpoint, report: Progress) -> None:
    readers: dict[Path, int] = {}
    try:
        with path.open("xb", buffering=0) as output:
            target = output.fileno()
            output.write(file.header)
            position = len(file.header)
            for tensor in file.tensors:
                _write_tensor(tensor, checkpoint, target, position, readers)
                position += tensor.nbytes
                report(tensor.nbytes)
            os.ftruncate(target, position)  # a hole at the very end has no bytes yet
            os.fsync(target)
    except OSError as error:
        raise as_output_error(error, path) from error
    finally:
        for reader in readers.values():
            os.close(reader)


def _write_tensor(
    tensor: PlannedTensor, checkpoint: Checkpoint, target: int, position: int, readers: dict[Path, int]
) -> None:
    if isinstance(tensor.content, Copy):
        source = checkpoint.tensors[tensor.content.source]
        if source.file not in readers:
            readers[source.file] = os.open(source.file, os.O_RDONLY)
        _move(readers[source.file], source.offset, target, position, source.nbytes)
    elif isinstance(tensor.content, Values):
        os.pwrite(target, tensor.content.data, position)


def _move(reader: int, start: int, writer: int, position: int, count: int) -> None:
    in_kernel = hasattr(os, "copy_file_range")
    while count:
        if in_kernel:
            try:
                moved = os.copy_file_range(reader, writer, count, start, position)
            except OSError as error:
                if error.errno not in _NOT_IN_KERNEL:
                    raise
                in_kernel = False  # another filesystem, or one that can't: copy through memory instead
                continue
        else:
            moved = os.pwrite(writer, os.pread(reader, min(count, CHUNK), start), position)
        if moved == 0:
            raise CheckpointError("the input became shorter while it was read; is something else writing to it?")
        start, position, count = start + moved, position + moved, count - moved


def _compare_file(path: Path, file: OutputFile, checkpoint: Checkpoint, report: Progress) -> None:
    written = read_header(path).tensors
    for planned in file.tensors:
        tensor = written[planned.name]
        if isinstance(planned.content, Copy):
            expected = read_chunks(checkpoint.tensors[planned.content.source])
        elif isinstance(planned.content, Values):
            expected = iter([planned.content.data])
        else:
            expected = (bytes(len(chunk)) for chunk in read_chunks(tensor))
        if any(found != wanted for found, wanted in zip(read_chunks(tensor), expected, strict=True)):
            raise CheckpointError(
                f"{path}: {planned.name!r} does not read back as it was written; is the disk failing?"
            )
        report(tensor.nbytes)


def read_chunks(tensor: Tensor) -> Iterator[bytes]:
    """A tensor's bytes, a few MiB at a time."""
    with tensor.file.open("rb", buffering=0) as file:
        for start in range(0, tensor.nbytes, CHUNK):
            yield os.pread(file.fileno(), min(CHUNK, tensor.nbytes - start), tensor.offset + start)
