"""Random values that nobody has to hold: any part of a tensor, at any time, from a seed and a place.

The generator is Philox 4x64-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), which is made
of a counter: value i of a tensor is word i of the stream. It is numpy's, whose raw words are the same everywhere, and
all arithmetic after it rounds as IEEE 754 says, so a seed gives the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRAWABLE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Dtypes that values can be drawn in -> bytes of one."""

_WORDS = 8
"""Words of 32 bits that the generator makes at each step of its counter."""


def seed_of(seed: int, name: str) -> int:
    """A tensor's own seed (128 bits), so that its values depend on nothing that is drawn beside it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], "little")


def draw(seed: int, bound: float, dtype: str, start: int, nbytes: int) -> bytes:
    """Bytes `start` to `start + nbytes` of a tensor whose values are uniform in [-bound, bound), little-endian."""
    size = DRAWABLE[dtype]
    first, last = start // size, -(-(start + nbytes) // size)
    values = _uniform(seed, first, last - first) * bound
    data = _encode(values, dtype)
    skipped = start - first * size
    return data[skipped : skipped + nbytes]


def _uniform(seed: int, first: int, count: int) -> NDArray[np.float64]:
    """`count` values of the stream from number `first` on, in [-1, 1), each a multiple of 2^-23."""
    import numpy as np

    skipped = first % _WORDS
    # numpy counts up before it makes the first words.
    generator = np.random.Philox(key=seed, counter=(first // _WORDS - 1) % 2**256)
    words = generator.random_raw(-(-(skipped + count) // 2)).astype("<u8").view("<u4")[skipped : skipped + count]
    return (words >> 8).astype(np.float64) * 2.0**-23 - 1.0


def _encode(values: NDArray[np.float64], dtype: str) -> bytes:
    if dtype == "F64":
        return values.astype("<f8").tobytes()
    single = values.astype("<f4")
    if dtype != "BF16":
        return single.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
    bits = single.view("<u4")
    # To the nearest, and of two equally near ones to the even one, as torch rounds.
    data: bytes = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return data
