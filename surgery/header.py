"""The header of a safetensors file, read and written without any library.

The format: 8 bytes of header length (little-endian), a JSON object, then the tensors' bytes with
no holes and no overlaps (https://github.com/huggingface/safetensors#format). What the official
library rejects is rejected here, and a few things more that it lets through: duplicate keys, a
header that does not start with "{", names that are empty or can't be written back as UTF-8. Fields of
an entry that the format does not have are read over, as there.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .disguise import looks_like
from .errors import CheckpointError
from .regular import open_regular, read_at
from .scan import Scanner
from .strict_json import check_value
from .tensor import Tensor, num_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

MAX_HEADER = 100_000_000
"""The official library's limit, in bytes."""
MAX_METADATA = 10_000_000
"""Bytes of `__metadata__`, which is the only part of a header that is text of any length."""

MAX_TENSORS = 100_000
"""In one file. Each takes some 500 bytes of memory, which a hostile header must not turn against us."""

_START = 512
"""Bytes of the beginning, for the length of the header and to see what a file is that is something else."""
_MAX_NAME = 65_536
_MAX_ENTRY = 65_536
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, kw_only=True)
class Header:
    """A file's tensors in the order of their bytes, and its `__metadata__`."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Read and check the header of one file; no tensor is read.

    Raises:
        CheckpointError: Anything about the file is not as the format has it.
    """
    with open_regular(path) as (file, size):
        return parse_header(path, size, lambda start, count: read_at(file, start, count, path))


def parse_header(path: Path, size: int, read: Callable[[int, int], bytes]) -> Header:
    """Check the header of a file that may be anywhere.

    Args:
        path: What it is called, for messages and for the tensors.
        size: Bytes of the whole file.
        read: Gives bytes of the file: (start, count) -> exactly so many. Nothing but the header is asked for.

    Raises:
        CheckpointError: Anything about the file is not as the format has it.
    """
    start = read(0, min(size, _START))
    length = int.from_bytes(start[:8], "little")
    if size < 9 or length > min(MAX_HEADER, size - 8) or start[8:9] != b"{":
        raise CheckpointError(f"{path}: {_what_is_wrong(start, length, size)}")
    data = read(8, length)
    scanner = Scanner(data, where=f"{path}: header")
    metadata: dict[str, str] | None = None
    tensors: dict[str, Tensor] = {}
    for name in scanner.members(limit=_MAX_NAME):
        if name in tensors or (name == _METADATA and metadata is not None):
            raise scanner.twice(name)
        if name == _METADATA:
            metadata = _metadata(scanner, path)
        else:
            if len(tensors) == MAX_TENSORS:
                raise CheckpointError(
                    f"{path}: holds more than {MAX_TENSORS} tensors; no model keeps so many in one file. "
                    "Save it in shards if yours does"
                )
            tensors[name] = _tensor(name, scanner.value(limit=_MAX_ENTRY), path, 8 + length, size)
    scanner.end()
    tensors = _in_order(tensors)
    _check_coverage(tensors, path, 8 + length, size)
    return Header(tensors=tensors, metadata=metadata or {})


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


def _in_order(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    places = [(tensor.offset, tensor.nbytes) for tensor in tensors.values()]
    if all(before <= after for before, after in pairwise(places)):
        return tensors
    return dict(sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)))


def _what_is_wrong(start: bytes, length: int, size: int) -> str:
    looks = looks_like(start)
    if looks:
        return looks
    if size < 9:
        return f"{size} bytes long; a safetensors file has more. Download it again"
    if length > MAX_HEADER or length > size - 8:
        return (
            f"its first 8 bytes ask for a header of {length} bytes, the file has {size - 8} after them; it is cut "
            "short, or not a safetensors file. Download it again"
        )
    return f"its header begins with {start[8:24]!r:.60}, not with '{{'; it is not a safetensors file"


def _metadata(scanner: Scanner, path: Path) -> dict[str, str]:
    if not scanner.next_is(b"{"):
        if scanner.value(limit=_MAX_ENTRY) is None:
            return {}
        raise CheckpointError(f"{path}: {_METADATA} must map strings to strings")
    found: dict[str, str] = {}
    left = MAX_METADATA
    for key in scanner.members(limit=_MAX_NAME):
        if key in found:
            raise scanner.twice(key)
        if not scanner.next_is(b'"'):
            raise CheckpointError(f"{path}: {_METADATA} must map strings to strings, and {key!r:.80} is no string")
        found[key] = scanner.string(limit=left)
        left -= len(key) + len(found[key])
    return found


def _tensor(name: str, entry: Any, path: Path, data_start: int, size: int) -> Tensor:
    where = f"{path}: tensor {name!r:.200}"
    if not name:
        raise CheckpointError(f"{path}: a tensor has the empty name; no model can load it")
    if not isinstance(entry, dict) or not entry.keys() >= _FIELDS:
        raise CheckpointError(f"{where}: expected an object with dtype, shape and data_offsets, found {entry!r:.100}")
    if len(entry) > len(_FIELDS):
        _check_fields(entry, where)
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
            f"{where}: ends at byte {end} of the data, the file has {size - data_start}; it is cut short. "
            "Download it again"
        )
    _check_product(shape, where)
    nbytes = num_bytes(dtype, shape, where=where)
    if nbytes != end - begin:
        raise CheckpointError(f"{where}: {dtype} {shape!r:.80} takes {nbytes} bytes, data_offsets hold {end - begin}")
    return Tensor(dtype=sys.intern(dtype), shape=tuple(shape), file=path, offset=data_start + begin, nbytes=nbytes)


def _check_fields(entry: dict[str, Any], where: str) -> None:
    """What the format does not have is checked for what no reader takes, and then read over."""
    try:
        check_value(entry)
    except RecursionError as error:
        raise CheckpointError(f"{where}: nested too deeply to be a real file") from error
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_product(shape: list[int], where: str) -> None:
    """As in the official library, the product must fit into 64 bits at every side, even where a later one is 0."""
    product = 1
    for side in shape:
        product *= side
        if product >= 2**64:
            raise CheckpointError(f"{where}: its shape {shape!r:.80} has more elements than 64 bits can count")


def _check_coverage(tensors: Mapping[str, Tensor], path: Path, data_start: int, size: int) -> None:
    position = data_start
    for name, tensor in tensors.items():
        if tensor.offset != position:
            what = "overlaps another" if tensor.offset < position else f"leaves {tensor.offset - position} bytes unused"
            raise CheckpointError(
                f"{path}: tensor {name!r:.200} {what} (begins at {tensor.offset}, expected {position})"
            )
        position += tensor.nbytes
    if position != size:
        raise CheckpointError(
            f"{path}: {size - position} bytes follow the last tensor; no checkpoint has a use for them"
        )
