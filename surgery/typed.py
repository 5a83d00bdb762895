"""Values of parsed JSON that must be of a type; a `ValueError` says what was found instead."""

from __future__ import annotations

import re
from typing import Any

_DIGITS = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)


def as_texts(value: Any) -> tuple[str, ...]:
    return tuple(map(as_text, as_list(value)))


def as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {value!r:.60}")
    return value


def as_number(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"expected a whole number, found {value!r:.60}")
    return value


def as_numbers(value: Any) -> tuple[int, ...]:
    return tuple(map(as_number, as_list(value)))


def as_digits(text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise ValueError(f"expected a number in digits, found {text!r:.60}")
    return int(text)


def as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list, found {value!r:.60}")
    return value


def as_table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {value!r:.60}")
    return value
