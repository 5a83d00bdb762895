"""Files from segments: linked, cloned or copied by a few workers, compared with their sources, on disk when done."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from .checksums import digest_of
from .disk import as_output_error
from .errors import CheckpointError
from .segments import Segment, split
from .span import Progress, Span

if TYPE_CHECKING:
    from pathlib import Path

_MAX_SPAN = 1 << 30
_MIN_SPAN = 16 << 20
_LINK_FROM = 1 << 20
"""Bytes. Smaller files are the ones that people edit in place (configs, cards), and cost nothing to copy."""
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True, kw_only=True)
class FileWork:
    """One file to make. `may_link`: it is a whole file of the input, which a hard link may stand for."""

    path: Path
    segments: tuple[Segment, ...]
    may_link: bool = False

    @property
    def num_bytes(self) -> int:
        return self.segments[-1].end if self.segments else 0


def carry(source: Path, target: Path) -> FileWork:
    """A file of the input as it is. Raises `CheckpointError` if it is gone."""
    try:
        size = os.stat(source).st_size
    except OSError as error:
        raise CheckpointError(f"{source}: can't be read: {error.strerror}") from error
    whole = Segment(position=0, nbytes=size, source=source, name=source.name)
    return FileWork(path=target, segments=(whole,) if size else (), may_link=size >= _LINK_FROM)


def default_workers() -> int:
    """As many as this process has processors, and 4 at most: more only wait for the disk."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, usable)


class Writer:
    """Makes files, each by one worker or several, and remembers their digests.

    Every byte that was copied is compared with its source. What was cloned is not read again: the
    filesystem was asked to let both files share the same blocks, so those bytes exist once and there
    is nothing to compare. Zeros are left as holes, which take no room here; programs that copy the
    output elsewhere may fill them. What is written and compared does not stay in the system's cache.

    Args:
        workers: Threads; None for `default_workers`.
        link: Make hard links of whole files of the input, where the filesystem lets us.
        digests: Compute the SHA-256 of every file.
        progress: See `Progress`. Never called by two threads at once.
    """

    def __init__(
        self, *, workers: int | None = None, link: bool = False, digests: bool = False, progress: Progress | None = None
    ) -> None:
        self._workers = workers or default_workers()
        self._link = link
        self._want_digests = digests
        self._progress = progress
        self._lock = threading.Lock()
        self._is_stopped = False
        self.digests: dict[Path, str] = {}

    def make(self, files: Sequence[FileWork]) -> None:
        """Make files that do not exist yet, and put them on disk.

        Raises:
            OutputError: The disk is full or the folder can't be written.
            CheckpointError: A source is shorter than it was, or what was written does not read back equal.
        """
        total = sum(file.num_bytes for file in files)
        size = max(_MIN_SPAN, min(_MAX_SPAN, total // (4 * self._workers)))
        tasks: list[Callable[[], None]] = []
        for file in files:
            try:
                if self._link and file.may_link and _try_link(file):
                    tasks.append(partial(self._finish_link, file))
                    continue
                _create(file)
            except OSError as error:
                raise as_output_error(error, file.path) from error
            # A digest takes one byte after another, so that such a file is for one worker.
            spans = [list(file.segments)] if self._want_digests else split(file.segments, size)
            tasks += [partial(self._write, file.path, span) for span in spans or [[]]]
        self._run(tasks)

    def _run(self, tasks: Sequence[Callable[[], None]]) -> None:
        workers = min(self._workers, len(tasks))
        if workers <= 1:
            for task in tasks:
                task()
            return
        from concurrent.futures import ThreadPoolExecutor, as_completed

        with ThreadPoolExecutor(workers) as pool:
            finished = False
            try:
                for future in as_completed([pool.submit(task) for task in tasks]):
                    future.result()
                finished = True
            finally:
                if not finished:  # nobody waits for gigabytes that will be thrown away
                    self._is_stopped = True
                    pool.shutdown(wait=True, cancel_futures=True)

    def _write(self, path: Path, segments: Sequence[Segment]) -> None:
        digest = hashlib.sha256() if self._want_digests else None
        span = Span(path, report=self._report, digest=None if digest is None else digest.update)
        try:
            span.write(segments)
        except OSError as error:
            raise as_output_error(error, path) from error
        if digest is not None:
            self.digests[path] = digest.hexdigest()

    def _finish_link(self, file: FileWork) -> None:
        try:
            if self._want_digests:
                self.digests[file.path] = digest_of(file.path)
        except OSError as error:
            raise as_output_error(error, file.path) from error
        self._report(2 * file.num_bytes)

    def _report(self, count: int) -> None:
        if self._is_stopped:
            raise _StoppedError
        if self._progress is not None:
            with self._lock:
                self._progress(count)


class _StoppedError(Exception):
    """Ends a worker because another one failed; never leaves the pool."""


def _create(file: FileWork) -> None:
    number = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less the umask
    try:
        os.ftruncate(number, file.num_bytes)
    finally:
        os.close(number)


def _try_link(file: FileWork) -> bool:
    source = file.segments[0].source if file.segments else None
    if source is None:
        return False
    try:
        os.link(os.path.realpath(source), file.path)  # a link to a link would die with the Hub's cache
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    number = os.open(file.path, os.O_RDONLY)
    try:
        os.fsync(number)  # whoever made the input may not have waited for the disk
    finally:
        os.close(number)
    return True
