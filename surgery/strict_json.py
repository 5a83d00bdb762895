"""JSON as the specification has it: no duplicate keys, no NaN, no surprises from Python's leniency."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import CheckpointError
from .regular import read_regular

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE = 16_000_000
"""Bytes of the largest JSON file that is read whole. A config.json has thousands, a growth.json a few millions."""

_MAX_DEPTH = 100
_MAX_DIGITS = 100


def parse(data: bytes, *, where: str) -> Any:
    """Parse UTF-8 JSON.

    Args:
        data: The text.
        where: What is being read, for the message.

    Raises:
        CheckpointError: Not UTF-8, not JSON, a key given twice, a number or a string that could not be
            written back (NaN, 1e999, half a surrogate pair), or nested more than 100 deep.
    """
    try:
        value = DECODER.decode(data.decode("utf-8"))
        check_value(value)
        return value
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{where}: not UTF-8 text (byte {error.start}); the file is damaged") from error
    except RecursionError as error:
        raise CheckpointError(f"{where}: nested too deeply to be a real file") from error
    except ValueError as error:  # JSONDecodeError, the hooks below, and what can't be encoded
        raise CheckpointError(f"{where}: not valid JSON: {_reason(data, error)}") from error


def parse_object(data: bytes, *, where: str) -> dict[str, Any]:
    """`parse`, and the top level must be an object."""
    value = parse(data, where=where)
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """`parse_object` of a file. Raises `CheckpointError` if it can't be read, or is larger than `MAX_FILE`."""
    return parse_object(read_regular(path, limit=MAX_FILE), where=str(path))


def dump(value: Any) -> str:
    """The one way this project writes JSON files: indented, keys in the order given, a newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def check_text(text: str) -> str:
    """The text, which can be written as UTF-8. Raises `ValueError` where it holds half a surrogate pair."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{text!r:.80} holds half a surrogate pair and can't be written back") from error
    return text


def check_value(value: Any, depth: int = _MAX_DEPTH) -> None:
    """Raises `RecursionError` where a value is nested deeper than that, and `ValueError` as `check_text` does."""
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, dict | list):
        if depth == 0:
            raise RecursionError
        if isinstance(value, dict):
            for key in value:
                check_text(key)
        for item in value.values() if isinstance(value, dict) else value:
            check_value(item, depth - 1)


def _reason(data: bytes, error: ValueError) -> str:
    if data.startswith(b"\xef\xbb\xbf"):
        return "it begins with a byte order mark. Save it as UTF-8 without one"
    return str(error) if data else "it is empty"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r:.200} is given twice")
            seen.add(key)
    return found


def _integer(text: str) -> int | float:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text) if text != "-0" else -0.0  # no whole number has a sign of its zero


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.40} is more than a number can be")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_no_constant
)
"""Parses text; what it does not accept is a `ValueError`, or a `RecursionError`."""
