"""Anatomies read from TOML, strictly: a key that is not known is an error, and so is a value of another type."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeVar

from .anatomy import Anatomy, Gate, Last, Partner, Refusal, Renumber, Slot, Stack, Stride, Variant
from .errors import AnatomyError
from .positions import Frames, FramesVariant, check_frames

if TYPE_CHECKING:
    from pathlib import Path

_T = TypeVar("_T")


def anatomies(extra: tuple[Path, ...] = ()) -> Mapping[str, Anatomy]:
    """Every architecture that is declared, by diffusers class name.

    Args:
        extra: A user's own TOML files; they come before ours of the same class.

    Raises:
        AnatomyError: A file can't be read or declares what it should not.
    """
    return {**_load_all(), **{anatomy.class_name: anatomy for anatomy in map(read_anatomy, extra)}}


@cache
def _load_all() -> dict[str, Anatomy]:
    found: dict[str, Anatomy] = {}
    for entry in sorted(files(__package__).joinpath("anatomies").iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".toml"):
            anatomy = parse_anatomy(entry.read_text(encoding="utf-8"), where=entry.name)
            if anatomy.class_name in found:
                raise AnatomyError(f"{entry.name}: {anatomy.class_name} is declared twice")
            found[anatomy.class_name] = anatomy
    return found


def read_anatomy(path: Path) -> Anatomy:
    """Read a declaration from a file. Raises `AnatomyError`."""
    try:
        return parse_anatomy(path.read_text(encoding="utf-8"), where=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise AnatomyError(f"{path}: can't be read: {error}") from error


def parse_anatomy(text: str, *, where: str) -> Anatomy:
    """Read one declaration. Raises `AnatomyError` for an unknown, missing or ill-typed key."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AnatomyError(f"{where}: not valid TOML: {error}") from error
    data["class_name"] = data.pop("class", None)
    if not isinstance(data.get("stacks"), list) or not data["stacks"]:
        raise AnatomyError(f"{where}: declare at least one [[stacks]]")
    anatomy = _build(Anatomy, data, where)
    for stack in anatomy.stacks:
        _check_stack(stack, f"{where}: stack {stack.name!r}")
    check_frames(anatomy.frames, f"{where}: frames")
    return anatomy


def _check_stack(stack: Stack, where: str) -> None:
    if stack.kind not in ("blocks", "unet_layers"):
        raise AnatomyError(f"{where}: kind is {stack.kind!r}, expected 'blocks' or 'unet_layers'")
    if not stack.count_keys:
        raise AnatomyError(f"{where}: count_keys is empty; something must say how many blocks there are")
    if stack.kind == "blocks" and not (stack.zero or stack.gates):
        raise AnatomyError(f"{where}: zero and gates are empty; a copy would change the function")
    for gate in stack.gates:
        if not gate.zero or not all(0 <= chunk < gate.chunks for chunk in gate.zero):
            raise AnatomyError(f"{where}: gate {gate.module!r} must zero some of its chunks 0 to {gate.chunks - 1}")
    for renumber in stack.renumber:
        if renumber.kind not in ("copies", "originals", "original", "below"):
            raise AnatomyError(f"{where}: renumber {renumber.key!r} has the unknown kind {renumber.kind!r}")


_TABLES: dict[str, type] = {"Frames": Frames, "Last | None": Last, "Slot | None": Slot}
_LISTS: dict[str, type] = {
    f"tuple[{kind.__name__}, ...]": kind
    for kind in (Stack, Gate, Partner, Renumber, Stride, Refusal, Variant, FramesVariant)
}
_SCALARS: dict[str, type] = {"str": str, "int": int, "bool": bool, "str | None": str, "int | None": int}


def _build(kind: type[_T], data: Any, where: str) -> _T:
    if not isinstance(data, dict):
        raise AnatomyError(f"{where}: missing, or not a table")
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise AnatomyError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}")
    missing = [
        name
        for name, item in known.items()
        if data.get(name) is None and item.default is MISSING and item.default_factory is MISSING
    ]
    if missing:
        raise AnatomyError(f"{where}: {missing[0]!r} is missing")
    return kind(**{name: _typed(value, str(known[name].type), f"{where}: {name}") for name, value in data.items()})


def _typed(value: Any, annotation: str, where: str) -> Any:
    if annotation in _TABLES:
        return _build(_TABLES[annotation], value, where)
    if annotation in _LISTS:
        return tuple(_build(_LISTS[annotation], item, where) for item in _list(value, where))
    if annotation.removesuffix(" | None") in ("tuple[str, ...]", "tuple[int, ...]"):
        wanted = str if "str" in annotation else int
        if not all(type(item) is wanted for item in _list(value, where)):
            raise AnatomyError(f"{where} must be a list of {wanted.__name__}, found {value!r:.60}")
        return tuple(value)
    if annotation in _SCALARS:
        if type(value) is not _SCALARS[annotation]:
            raise AnatomyError(f"{where} must be {_SCALARS[annotation].__name__}, found {value!r:.60}")
    elif not isinstance(value, dict):
        raise AnatomyError(f"{where} must be a table, found {value!r:.60}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise AnatomyError(f"{where} must be a list, found {value!r:.60}")
    return value
