"""The bytes of an identity matrix, made without numpy."""

from __future__ import annotations

import struct

from .errors import PlanError

_ONE = {
    "F64": struct.pack("<d", 1.0),
    "F32": struct.pack("<f", 1.0),
    "F16": struct.pack("<e", 1.0),
    "BF16": struct.pack("<f", 1.0)[2:],  # the upper half of a float32
}


def one(dtype: str, *, where: str) -> bytes:
    """The number 1, little-endian. Raises `PlanError` for a dtype that an identity is not written in."""
    if dtype not in _ONE:
        raise PlanError(f"{where!r}: an identity can't be written as {dtype}; convert to {', '.join(_ONE)} first")
    return _ONE[dtype]


def identity_beside_zeros(dtype: str, shape: tuple[int, ...], *, where: str) -> bytes:
    """[I | 0], little-endian: `rows` x `columns`, ones on the diagonal of the first `rows` columns.

    Args:
        dtype: safetensors' name of it: F64, F32, F16 or BF16.
        shape: (rows, columns, 1, ...), such as the weight of a convolution with a kernel of 1.
        where: The tensor's name, for messages.

    Raises:
        PlanError: There are fewer columns than rows, the kernel is larger than 1, or the dtype is another one.
    """
    if len(shape) < 2 or shape[1] < shape[0] or any(side != 1 for side in shape[2:]):
        raise PlanError(f"{where!r}: its shape {list(shape)} can't hold an identity beside zeros")
    value, (rows, columns) = one(dtype, where=where), shape[:2]
    data = bytearray(rows * columns * len(value))
    for row in range(rows):
        start = row * (columns + 1) * len(value)
        data[start : start + len(value)] = value
    return bytes(data)
