"""Carry a plan out: stream bytes from the input's files to new ones, then read them back and compare.

Nothing is loaded. Bytes are moved inside the kernel, which clones them where the filesystem can;
zeros are left as holes. Memory use does not depend on the checkpoint's size.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from . import strict_json
from .checkpoint import CONFIG_NAME, INDEX_SUFFIX
from .errors import CheckpointError, OutputError
from .header import read_header
from .layout import STEM, index_of, lay_out
from .plan import Copy, Pieces, Values
from .record import RECORD_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping
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


def apply(
    plan: Plan, checkpoint: Checkpoint, record: Record | None, folder: Path, progress: Progress | None = None
) -> None:
    """Write a component folder: weights, index, config.json, growth.json.

    Args:
        plan: Validated against `checkpoint`.
        checkpoint: The input. Its files are only read.
        record: What to write to growth.json; None writes none.
        folder: An existing folder that nobody reads yet; publishing it is the caller's part.
        progress: See `Progress`.

    Raises:
        OutputError: The disk is full or the folder can't be written.
        CheckpointError: The input changed while it was read, or what was written does not read back equal.
    """
    report = progress or (lambda _: None)
    layout = lay_out(plan, checkpoint)
    for file in layout:
        write_tensors(folder / file.name, file, checkpoint.tensors, report)
    index = index_of(layout)
    if index is not None:
        write_text(folder / (STEM + INDEX_SUFFIX), strict_json.dump(index))
    write_text(folder / CONFIG_NAME, strict_json.dump(plan.new_config(checkpoint.config)))
    if record is not None:
        write_text(folder / RECORD_NAME, strict_json.dump(record.to_json()))


def write_tensors(path: Path, file: OutputFile, tensors: Mapping[str, Tensor], report: Progress) -> None:
    """Write one .safetensors file durably, read it back and compare every byte.

    Args:
        path: The file to make; it must not exist. `file.name` does not matter here.
        file: Its header and its tensors, from `layout.output_file`.
        tensors: Where the sources that the tensors name lie. These files are only read.
        report: See `Progress`.

    Raises:
        OutputError: The disk is full or the file can't be written.
        CheckpointError: A source changed while it was read, or what was written does not read back equal.
    """
    _write_file(path, file, tensors, report)
    _compare_file(path, file, tensors, report)


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


def _write_file(path: Path, file: OutputFile, tensors: Mapping[str, Tensor], report: Progress) -> None:
    readers: dict[Path, int] = {}
    try:
        with path.open("xb", buffering=0) as output:
            target = output.fileno()
            output.write(file.header)
            position = len(file.header)
            for tensor in file.tensors:
                _write_tensor(tensor, tensors, target, position, readers)
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
    tensor: PlannedTensor, tensors: Mapping[str, Tensor], target: int, position: int, readers: dict[Path, int]
) -> None:
    for part in _resolve(tensor, tensors):
        if isinstance(part, bytes):
            os.pwrite(target, part, position)
            position += len(part)
        elif isinstance(part, int):
            position += part  # a hole
        else:
            if part.file not in readers:
                readers[part.file] = os.open(part.file, os.O_RDONLY)
            _move(readers[part.file], part.offset, target, position, part.nbytes)
            position += part.nbytes


def _resolve(planned: PlannedTensor, tensors: Mapping[str, Tensor]) -> list[bytes | int | Tensor]:
    """What a tensor is made of: bytes, a number of zero bytes, or a range of a file."""
    content = planned.content
    if isinstance(content, Copy):
        return [tensors[content.source]]
    if isinstance(content, Values):
        return [content.data]
    if not isinstance(content, Pieces):
        return [planned.nbytes]
    row = planned.nbytes // planned.shape[0] if planned.shape[0] else 0
    found: list[bytes | int | Tensor] = []
    for part in content.parts:
        size = row * (part.stop - part.start)
        if part.source is None:
            found.append(size)
        else:
            source = tensors[part.source]
            found.append(replace(source, offset=source.offset + row * part.start, nbytes=size))
    return found


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


def _compare_file(path: Path, file: OutputFile, tensors: Mapping[str, Tensor], report: Progress) -> None:
    written = read_header(path).tensors
    for planned in file.tensors:
        tensor, position = written[planned.name], 0
        for part in _resolve(planned, tensors):
            size = part if isinstance(part, int) else len(part) if isinstance(part, bytes) else part.nbytes
            found = read_chunks(replace(tensor, offset=tensor.offset + position, nbytes=size))
            if isinstance(part, bytes):
                same = b"".join(found) == part
            elif isinstance(part, int):
                same = all(chunk == bytes(len(chunk)) for chunk in found)
            else:
                same = all(a == b for a, b in zip(found, read_chunks(part), strict=True))
            if not same:
                raise CheckpointError(
                    f"{path}: {planned.name!r} does not read back as it was written; is the disk failing?"
                )
            position += size
        report(tensor.nbytes)


def read_chunks(tensor: Tensor) -> Iterator[bytes]:
    """A tensor's bytes, a few MiB at a time."""
    with tensor.file.open("rb", buffering=0) as file:
        for start in range(0, tensor.nbytes, CHUNK):
            yield os.pread(file.fileno(), min(CHUNK, tensor.nbytes - start), tensor.offset + start)
