"""The header of a safetensors file, read and written without any library.

The format: 8 bytes of header length (little-endian), a JSON object, then the tensors' bytes with
no holes and no overlaps (https://github.com/huggingface/safetensors#format). What the official
library rejects is rejected here, and a few things more that it lets through: duplicate keys, a
header that does not start with "{", names that are empty or can't be written back as UTF-8.
"""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import strict_json
from .errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MAX_HEADER = 100_000_000
"""The official library's limit, in bytes."""

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

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Header:
    """A file's tensors in the order of their bytes, and its `__metadata__`."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def num_bytes(dtype: str, shape: Iterable[int], *, where: str) -> int:
    """Bytes that a tensor takes. Raises `CheckpointError` for an unknown dtype or a part of a byte."""
    if dtype not in DTYPE_BITS:
        raise CheckpointError(f"{where}: unknown dtype {dtype!r}; known are {', '.join(DTYPE_BITS)}")
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits % 8:
        raise CheckpointError(f"{where}: {bits} bits of {dtype} do not fill whole bytes")
    return bits // 8


def read_header(path: Path) -> Header:
    """Read and check the header of one file; no tensor is read.

    Raises:
        CheckpointError: Anything about the file is not as the format has it.
    """
    size = _regular_file_size(path)
    if size < 8:
        raise CheckpointError(f"{path}: {size} bytes long; a safetensors file has at least 8. Download it again")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER or length > size - 8:
            raise CheckpointError(
                f"{path}: its first 8 bytes ask for a header of {length} bytes, the file has {size - 8} after them; "
                "it is cut short, or not a safetensors file"
            )
        data = file.read(length)
    if not data.startswith(b"{"):
        raise CheckpointError(f"{path}: its header does not begin with '{{'; it is not a safetensors file")
    entries = strict_json.parse_object(data, where=f"{path}: header")
    metadata = _metadata(entries.pop("__metadata__", None), path)
    tensors = {name: _tensor(name, entry, path, 8 + length, size) for name, entry in entries.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)))
    _check_coverage(ordered, path, 8 + length, size)
    return Header(tensors=ordered, metadata=metadata)


def write_header(
    tensors: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str], *, shift: int | None = None
) -> bytes:
    """The bytes before the data of a file that holds `tensors` (dtype, shape, bytes) in this order.

    Spaces at its end align the data to 8 bytes, as the official library does; with `shift` they let
    the data begin at that offset modulo 4096, so that blocks can be cloned (see `congruence`).
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, (dtype, shape, nbytes) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + nbytes]}
        position += nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    start = 8 + len(text)
    text += b" " * (-start % 8 if shift is None else (shift - start) % 4096)
    return len(text).to_bytes(8, "little") + text


def _regular_file_size(path: Path) -> int:
    try:
        status = os.stat(path)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: not a regular file")
    return status.st_size


def _metadata(value: Any, path: Path) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise CheckpointError(f"{path}: __metadata__ must map strings to strings")
    _check_utf8(path, *value, *value.values())
    return value


def _tensor(name: str, entry: Any, path: Path, data_start: int, size: int) -> Tensor:
    where = f"{path}: tensor {name!r}"
    _check_utf8(path, name)
    if not name:
        raise CheckpointError(f"{path}: a tensor has the empty name; no model can load it")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: expected an object with dtype, shape and data_offsets, found {entry!r:.100}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        raise CheckpointError(f"{where}: dtype is {dtype!r:.60}, not a string")
    if not _is_counts(shape):
        raise CheckpointError(f"{where}: shape is {shape!r:.60}, not a list of whole numbers")
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise CheckpointError(f"{where}: data_offsets are {offsets!r:.60}, not a begin and an end")
    begin, end = offsets
    if end > size - data_start:
        raise CheckpointError(
            f"{where}: ends at byte {end} of the data, the file has {size - data_start}; it is cut short"
        )
    nbytes = num_bytes(dtype, shape, where=where)
    if nbytes != end - begin:
        raise CheckpointError(f"{where}: {dtype} {shape} takes {nbytes} bytes, data_offsets hold {end - begin}")
    return Tensor(dtype=dtype, shape=tuple(shape), file=path, offset=data_start + begin, nbytes=nbytes)


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_utf8(path: Path, *texts: str) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise CheckpointError(f"{path}: {text!r} holds half a surrogate pair and can't be written back") from error


def _check_coverage(tensors: Mapping[str, Tensor], path: Path, data_start: int, size: int) -> None:
    position = data_start
    for name, tensor in tensors.items():
        if tensor.offset != position:
            what = "overlaps another" if tensor.offset < position else f"leaves {tensor.offset - position} bytes unused"
            raise CheckpointError(f"{path}: tensor {name!r} {what} (begins at {tensor.offset}, expected {position})")
        position += tensor.nbytes
    if position != size:
        raise CheckpointError(
            f"{path}: {size - position} bytes follow the last tensor; no checkpoint has a use for them"
        )
