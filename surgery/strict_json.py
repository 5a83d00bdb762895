"""JSON as the specification has it: no duplicate keys, no NaN, no surprises from Python's leniency."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path


def parse(data: bytes, *, where: str) -> Any:
    """Parse UTF-8 JSON.

    Args:
        data: The text.
        where: What is being read, for the message.

    Raises:
        CheckpointError: Not UTF-8, not JSON, a key given twice, NaN, or nested too deeply.
    """
    try:
        text = data.decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{where}: not UTF-8 text (byte {error.start}); the file is damaged") from error
    except RecursionError as error:
        raise CheckpointError(f"{where}: nested too deeply to be a real file") from error
    except ValueError as error:  # JSONDecodeError, the hooks below, and Python's limit on digits
        raise CheckpointError(f"{where}: not valid JSON: {error}") from error


def parse_object(data: bytes, *, where: str) -> dict[str, Any]:
    """`parse`, and the top level must be an object."""
    value = parse(data, where=where)
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """`parse_object` of a file. Raises `CheckpointError` if it can't be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error
    return parse_object(data, where=str(path))


def dump(value: Any) -> str:
    """The one way this project writes JSON files: indented, keys in the order given, a newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} is given twice")
            seen.add(key)
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
