"""What strangers wrote as JSON, made sure of: objects, texts, and the header of a safetensors file to be."""

from __future__ import annotations

from typing import Any

from . import strict_json
from .errors import CheckpointError
from .tensor import num_bytes


def as_object(value: Any, where: str) -> dict[str, Any]:
    """Raises `CheckpointError` if it is none."""
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected an object, found {value!r:.60}")
    return value


def as_text(value: Any, where: str) -> str:
    """Raises `CheckpointError` if it is none, or can't be written."""
    if not isinstance(value, str):
        raise CheckpointError(f"{where}: expected text, found {value!r:.60}")
    as_bytes(value, where)
    return value


def as_bytes(text: str, where: str) -> bytes:
    """UTF-8. Raises `CheckpointError` if the text has none."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{where}: holds half a surrogate pair, which no file can") from error


def parse_layout(header: bytes, *, where: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors that a header describes, dtype and shape, in the order of their bytes.

    Raises:
        CheckpointError: It is no safetensors header, or the bytes would not lie one after another.
    """
    if not header.startswith(b"{"):
        raise CheckpointError(f"{where}: does not begin with '{{'")
    entries = strict_json.parse_object(header, where=where)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(item, str) for item in metadata.values()):
        raise CheckpointError(f"{where}: __metadata__ must map strings to strings")
    for name, entry in entries.items():
        _check_entry(as_text(name, where), entry, where)
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        end = position + num_bytes(dtype, shape, where=f"{where}: {name!r}")
        if entry["data_offsets"] != [position, end]:
            raise CheckpointError(f"{where}: {name!r} lies at {entry['data_offsets']}, expected {[position, end]}")
        found[name] = dtype, shape
        position = end
    return found


def _check_entry(name: str, entry: Any, where: str) -> None:
    fine = name and isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"}
    if not fine or not isinstance(entry["dtype"], str):
        raise CheckpointError(f"{where}: {name!r:.80}: expected dtype, shape and data_offsets, found {entry!r:.80}")
    for key in ("shape", "data_offsets"):
        value = entry[key]
        if not isinstance(value, list) or not all(type(item) is int and 0 <= item < 2**63 for item in value):
            raise CheckpointError(f"{where}: {name!r:.80}: {key} is {value!r:.60}, not a list of whole numbers")
