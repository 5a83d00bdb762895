"""One worker's part of one file: segments written, compared, and on disk when it is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .errors import CheckpointError
from .move import CHUNK, Mover, write_at
from .readback import Reader, is_hole, whole_blocks

if TYPE_CHECKING:
    from pathlib import Path

    from .segments import Segment

Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call; a byte counts twice, written and compared."""

Digest = Callable[[bytearray], object]

_STRIDE = 4 << 20
_BEHIND = 64 << 20
"""Bytes: the disk is told to begin every stride, and to be done that far behind."""


class Span:
    """Files opened once, buffers used again and again, for segments of the file at `path`, which exists.

    Args:
        path: The output file.
        report: Told the number of bytes done; a byte counts twice, written and compared.
        digest: Told the bytes of the output, in order; None if nobody wants them.
    """

    def __init__(self, path: Path, *, report: Progress, digest: Digest | None = None) -> None:
        self._path = path
        self._report = report
        self._digest = digest
        self._mover = Mover()
        self._reader = Reader()
        self._files: dict[Path, int] = {}
        self._begun = 0

    def write(self, segments: Sequence[Segment]) -> None:
        """Write and compare all of them, then wait for the disk.

        Raises:
            OSError: The output can't be written.
            CheckpointError: A source can't be read or is shorter than it was, or what was written does not
                read back equal.
        """
        with ExitStack() as stack:
            target = os.open(self._path, os.O_RDWR)
            stack.callback(os.close, target)
            first = self._begun = segments[0].position if segments else 0
            for segment in segments:
                self._write_segment(target, segment, self._source(segment, stack))
            os.fsync(target)
            _let_go(target, first, segments[-1].end if segments else 0)

    def _source(self, segment: Segment, stack: ExitStack) -> int:
        path = segment.source
        if path is None:
            return -1
        if path not in self._files:
            try:
                self._files[path] = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error
            stack.callback(os.close, self._files[path])
        return self._files[path]

    def _write_segment(self, target: int, segment: Segment, source: int) -> None:
        is_aligned = segment.is_congruent or segment.is_zeros
        start, stop = whole_blocks(segment) if is_aligned else (segment.end, segment.end)
        body = segment.cut(start, stop)
        if not self._needs_no_copy(target, body, source):
            self._copy(target, segment, source)
            return
        self._copy(target, segment.cut(segment.position, start), source)
        if self._digest is not None:
            for step in body.in_steps(CHUNK):
                self._reader.feed(target, step, self._digest)
        self._report(2 * body.nbytes)
        self._copy(target, segment.cut(stop, segment.end), source)

    def _needs_no_copy(self, target: int, body: Segment, source: int) -> bool:
        """Whether whole blocks are there already: zeros that are a hole, or a source's blocks, shared."""
        if body.is_zeros:
            return is_hole(target, body.position, body.end)
        return self._mover.clone(source, body.offset, target, body.position, body.nbytes)

    def _copy(self, target: int, segment: Segment, source: int) -> None:
        for part in segment.in_steps(CHUNK):
            step = part.made()
            if step.data is not None:
                write_at(target, step.data, step.position)
            elif not step.is_zeros:
                self._mover.move(source, step.offset, target, step.position, step.nbytes)
            self._report(step.nbytes)
            # At once, while both are still in the processor's cache.
            if self._reader.differs(target, step, source, self._digest):
                raise CheckpointError(
                    f"{self._path}: the bytes from {step.name!r} on do not read back as they are in the source. "
                    "Something else writes to one of the files, or memory or disk fail; try again"
                )
            self._report(step.nbytes)
            if step.end - self._begun >= _STRIDE:
                self._pace(target, step.end)

    def _pace(self, target: int, done: int) -> None:
        """Let the disk begin now, so that little is left to wait for at the end, and give back what it has."""
        _let_go(target, self._begun, done)
        _let_go(target, self._begun - _BEHIND, done - _BEHIND)
        self._begun = done


def _let_go(file: int, start: int, stop: int) -> None:
    """Tell the system that a range of a file won't be read again soon.

    Linux then begins to write what is not on disk yet, and takes back the memory of what is. To fill
    new memory takes longer than the copy itself where the machine is virtual, and gigabytes that are
    only written would drive out what others read.
    """
    start = max(0, start)
    if hasattr(os, "posix_fadvise") and start < stop:
        os.posix_fadvise(file, start, stop - start, os.POSIX_FADV_DONTNEED)
