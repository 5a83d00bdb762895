"""A fingerprint tells one set of weights from another without reading all of it.

SHA-256 over every tensor's name, dtype and shape and up to three samples of 4 KiB of its bytes (its
beginning, middle and end), in the order of the names. How the tensors are spread over files, and
metadata, do not count.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .content import stored_in
from .segments import segments_of
from .tensor import check_here, num_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from .checkpoint import Checkpoint
    from .plan import PlannedTensor
    from .tensor import Tensor

SAMPLE = 4096
"""Bytes of a sample."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A tensor, wherever it is: `read(start, count)` gives some of its bytes, little-endian and row-major."""

    name: str
    dtype: str
    """As safetensors has it, such as "BF16"."""
    shape: tuple[int, ...]
    read: Callable[[int, int], bytes]


def fingerprint(tensors: Iterable[Sampled]) -> str:
    """The fingerprint of a set of tensors."""
    digest = hashlib.sha256()
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        nbytes = num_bytes(tensor.dtype, tensor.shape, where=tensor.name)
        digest.update(json.dumps([tensor.name, tensor.dtype, list(tensor.shape)]).encode())
        for start in sample_starts(nbytes):
            digest.update(tensor.read(start, min(SAMPLE, nbytes - start)))
    return f"sha256-sampled:{digest.hexdigest()}"


def sample_starts(nbytes: int) -> list[int]:
    """Where the samples of a tensor of `nbytes` bytes begin."""
    last = max(nbytes - SAMPLE, 0)
    return sorted({0, last // 2, last})


def fingerprint_of(checkpoint: Checkpoint) -> str:
    """The fingerprint of a checkpoint's weights as they lie in its files. Raises `SourceError` if they are not here."""
    check_here(checkpoint.tensors.values())
    with _Files() as files:
        return fingerprint(
            Sampled(name=name, dtype=t.dtype, shape=t.shape, read=files.reader(t.file, t.offset))
            for name, t in checkpoint.tensors.items()
        )


def fingerprint_of_planned(tensors: Iterable[PlannedTensor], sources: Mapping[str, Tensor]) -> str:
    """The fingerprint of tensors as a plan would write them, before anything is written. Raises as above."""
    tensors = tuple(tensors)
    check_here(stored for tensor in tensors for stored in stored_in(tensor.content, sources))
    with _Files() as files:
        return fingerprint(
            Sampled(name=t.name, dtype=t.dtype, shape=t.shape, read=_planned_reader(t, sources, files)) for t in tensors
        )


class _Files(ExitStack):
    """Files that are opened once, however many tensors they hold, and closed at the end of the block."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[Path, int] = {}

    def reader(self, path: Path, offset: int) -> Callable[[int, int], bytes]:
        def read(start: int, count: int) -> bytes:
            if path not in self._numbers:
                self._numbers[path] = os.open(path, os.O_RDONLY)
                self.callback(os.close, self._numbers[path])
            return os.pread(self._numbers[path], count, offset + start)

        return read


def _planned_reader(tensor: PlannedTensor, sources: Mapping[str, Tensor], files: _Files) -> Callable[[int, int], bytes]:
    def read(start: int, count: int) -> bytes:
        found = b""
        for segment in segments_of([tensor], sources, 0):
            first, last = max(segment.position, start), min(segment.end, start + count)
            if first >= last:
                continue
            part = segment.cut(first, last).made()
            if part.source is not None:
                found += files.reader(part.source, part.offset)(0, part.nbytes)
            else:
                found += bytes(part.nbytes) if part.data is None else part.data
        return found

    return read
