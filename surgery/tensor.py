"""A tensor as it lies in a file: what it is called there is its key's business, its bytes stay where they are."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import CheckpointError, SourceError

if TYPE_CHECKING:
    from pathlib import Path

DTYPE_BITS: dict[str, int] = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits per element of every dtype that a safetensors file may hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """Where a tensor's bytes lie. `offset` is counted from the start of `file`."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int
    fetch: Callable[[int, int], bytes] | None = field(default=None, compare=False, repr=False)
    """None if `file` is here. Otherwise only its header was fetched, and this gets some of its bytes (start, count)."""

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    def read(self) -> bytes:
        """All its bytes, of a tensor that is small.

        Raises:
            CheckpointError: The file has become shorter.
            SourceError: It is not here and can't be fetched, or is too large to be fetched by itself.
            OSError: The file is here and can't be read.
        """
        if self.fetch is not None:
            return self.fetch(self.offset, self.nbytes)
        with self.file.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), self.nbytes, self.offset)
        if len(data) != self.nbytes:
            raise CheckpointError(f"{self.file}: became shorter while it was read. Is it still being written?")
        return data


def num_bytes(dtype: str, shape: Iterable[int], *, where: str) -> int:
    """Bytes that a tensor takes. Raises `CheckpointError` for an unknown dtype or a part of a byte."""
    if dtype not in DTYPE_BITS:
        raise CheckpointError(f"{where}: unknown dtype {dtype!r:.40}; known are {', '.join(DTYPE_BITS)}")
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits % 8:
        raise CheckpointError(f"{where}: {bits} bits of {dtype} do not fill whole bytes")
    return bits // 8


def is_here(tensors: Iterable[Tensor]) -> bool:
    """Whether the bytes of all of them can be read, and not their headers alone."""
    return all(tensor.fetch is None for tensor in tensors)


def check_here(tensors: Iterable[Tensor]) -> None:
    """Refuse what was opened by its headers alone. Raises `SourceError`."""
    for tensor in tensors:
        if tensor.fetch is not None:
            raise SourceError(
                f"{tensor.file}: only its header was fetched, and its tensors are to be read. Open the model with its "
                "weights (open_source without headers_only, or with the file in fetch)"
            )
