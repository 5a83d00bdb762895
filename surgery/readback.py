"""Comparing what was written with where it came from, a quarter MiB at a time."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from .errors import CheckpointError
from .move import BLOCK, CHUNK, read_into

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .segments import Segment
    from .span import Digest
    from .tensor import Tensor

_ZEROS = bytearray(CHUNK)


class Reader:
    """Two buffers that are filled again and again. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._found = bytearray(CHUNK)
        self._wanted = bytearray(CHUNK)

    def differs(self, written: int, segment: Segment, source: int, digest: Digest | None) -> bool:
        """Compare a segment of at most `CHUNK` bytes of the file `written` with its source.

        Args:
            written: The output, open for reading.
            segment: What should be there.
            source: The segment's source, open for reading; anything where it has none.
            digest: Told the bytes that were found.

        Raises:
            CheckpointError: One of the files is shorter than it should be.
        """
        count = segment.nbytes
        if segment.is_zeros and digest is None and is_hole(written, segment.position, segment.end):
            return False
        read_into(written, memoryview(self._found)[:count], segment.position)
        found = self._found if count == CHUNK else self._found[:count]
        if digest is not None:
            digest(found)
        if segment.data is not None:
            return found != segment.data
        if segment.is_zeros:
            return found != (_ZEROS if count == CHUNK else _ZEROS[:count])
        read_into(source, memoryview(self._wanted)[:count], segment.offset)
        # Two bytearrays compare by memcmp; memoryviews would go element by element.
        return found != (self._wanted if count == CHUNK else self._wanted[:count])

    def feed(self, written: int, segment: Segment, digest: Digest) -> None:
        """Read a segment of at most `CHUNK` bytes for its digest alone."""
        read_into(written, memoryview(self._found)[: segment.nbytes], segment.position)
        digest(self._found if segment.nbytes == CHUNK else self._found[: segment.nbytes])


def is_hole(file: int, start: int, stop: int) -> bool:
    """Whether the filesystem says that a range has no data, so that it reads as zeros."""
    try:
        return os.lseek(file, start, os.SEEK_DATA) >= stop
    except OSError as error:
        if error.errno == errno.ENXIO:  # no data from there to the end
            return os.fstat(file).st_size >= stop
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise


def whole_blocks(segment: Segment) -> tuple[int, int]:
    """The part of a segment that covers whole blocks, as (start, stop); start == stop if there is none."""
    start = -(-segment.position // BLOCK) * BLOCK
    stop = segment.end // BLOCK * BLOCK
    return (start, stop) if start < stop else (segment.position, segment.position)


def read_chunks(tensor: Tensor) -> Iterator[bytes]:
    """A tensor's bytes, a quarter MiB at a time. Raises `CheckpointError` where its file is cut short."""
    with tensor.file.open("rb", buffering=0) as file:
        for start in range(0, tensor.nbytes, CHUNK):
            count = min(CHUNK, tensor.nbytes - start)
            chunk = os.pread(file.fileno(), count, tensor.offset + start)
            if len(chunk) != count:
                raise CheckpointError(f"{tensor.file}: became shorter while it was read")
            yield chunk


def same_bytes(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of the same size hold the same bytes. Raises `CheckpointError`, see `read_chunks`."""
    return all(a == b for a, b in zip(read_chunks(first), read_chunks(second), strict=True))
