"""What an architecture is made of, as data: one TOML file per class in `anatomies/`.

An anatomy is declared, never inferred: a key that is not known is an error, and so is a checkpoint
that does not fit. Tensors that no stack mentions are carried through untouched.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import AnatomyError, CheckpointError

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Blocks of one shape, one after another, that a config key counts."""

    name: str
    """Prefix of the blocks' tensors: block i holds `{name}.{i}.*`."""
    count_key: str
    """The config key that says how many there are."""
    zero: tuple[str, ...]
    """Modules inside a block whose weight (and bias, where there is one) must be zero in a copy, so that the
    copy adds nothing to the residual stream."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """What bounds the length of a clip."""

    unit: str
    note: str
    limit_key: str | None = None
    """Config key that holds a hard limit."""
    trained_key: str | None = None
    """Config key that holds the length the model was trained at."""


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """One architecture."""

    class_name: str
    family: str
    text: str
    """Where the prompt enters."""
    frames: Frames
    stacks: tuple[Stack, ...]

    def stack(self, name: str | None) -> Stack:
        """The stack of that name; the only one if no name is given. Raises `AnatomyError`."""
        names = ", ".join(stack.name for stack in self.stacks)
        if name is None:
            if len(self.stacks) > 1:
                raise AnatomyError(f"{self.class_name} has several stacks; say which with --stack: {names}")
            return self.stacks[0]
        for stack in self.stacks:
            if stack.name == name:
                return stack
        raise AnatomyError(f"{self.class_name} has no stack {name!r}; it has: {names}")


def anatomies() -> Mapping[str, Anatomy]:
    """Every architecture that is declared, by diffusers class name."""
    return _load_all()


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


def parse_anatomy(text: str, *, where: str) -> Anatomy:
    """Read one declaration. Raises `AnatomyError` for an unknown, missing or ill-typed key."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AnatomyError(f"{where}: not valid TOML: {error}") from error
    data["class_name"] = data.pop("class", None)
    data["frames"] = _build(Frames, data.get("frames"), where=f"{where} [frames]")
    stacks = data.get("stacks")
    if not isinstance(stacks, list) or not stacks:
        raise AnatomyError(f"{where}: declare at least one [[stacks]]")
    data["stacks"] = tuple(_build(Stack, stack, where=f"{where} [[stacks]]") for stack in stacks)
    return _build(Anatomy, data, where=where)


def _build(kind: type[_T], data: Any, *, where: str) -> _T:
    if not isinstance(data, dict):
        raise AnatomyError(f"{where}: missing, or not a table")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise AnatomyError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}")
    missing = [name for name, field in known.items() if name not in data and field.default is MISSING]
    if missing:
        raise AnatomyError(f"{where}: {missing[0]!r} is missing")
    return kind(**{name: _typed(value, str(known[name].type), f"{where}: {name}") for name, value in data.items()})


def _typed(value: Any, annotation: str, where: str) -> Any:
    if annotation.startswith("str") and not isinstance(value, str):
        raise AnatomyError(f"{where} must be a string, found {value!r:.60}")
    if annotation == "tuple[str, ...]":
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise AnatomyError(f"{where} must be a list of strings, found {value!r:.60}")
        return tuple(value)
    return value


@dataclass(frozen=True, kw_only=True)
class BlockTensors:
    """A stack as it stands in a checkpoint: for every block, its tensors by their name inside the block."""

    stack: Stack
    blocks: tuple[Mapping[str, str], ...]

    @property
    def depth(self) -> int:
        return len(self.blocks)


def measure(checkpoint: Checkpoint, stack: Stack) -> BlockTensors:
    """Find a stack's blocks and check that tensors, numbering and config agree.

    Raises:
        CheckpointError: The config counts other blocks than the file holds, a number is missing, or the
            tensors to zero are not there.
    """
    where = f"{checkpoint.path}: stack {stack.name!r}"
    blocks = group_blocks(checkpoint.tensors, stack.name)
    count = checkpoint.config.get(stack.count_key)
    if type(count) is not int or count < 1:
        raise CheckpointError(f"{where}: config.json has {stack.count_key} = {count!r}, expected a number of blocks")
    if not blocks:
        raise CheckpointError(
            f"{where}: no tensor is called {stack.name}.0.*; the file is not in diffusers' layout for "
            f"{checkpoint.class_name}"
        )
    if sorted(blocks) != list(range(count)):
        raise CheckpointError(
            f"{where}: config.json says {stack.count_key} = {count}, the tensors hold blocks {_ranges(sorted(blocks))}"
        )
    ordered = tuple(blocks[i] for i in range(count))
    for i, block in enumerate(ordered):
        for module in stack.zero:
            if f"{module}.weight" not in block:
                raise CheckpointError(f"{where}: {stack.name}.{i}.{module}.weight is not in the file")
    return BlockTensors(stack=stack, blocks=ordered)


def group_blocks(names: Mapping[str, Any], stack_name: str) -> dict[int, dict[str, str]]:
    """Block number -> name inside the block -> whole name. Numbers are ASCII digits without leading zeros."""
    pattern = re.compile(re.escape(stack_name) + r"\.(0|[1-9][0-9]*)\.(.+)", re.DOTALL)
    blocks: dict[int, dict[str, str]] = {}
    for name in names:
        if match := pattern.fullmatch(name):
            blocks.setdefault(int(match[1]), {})[match[2]] = name
    return blocks


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] to "0-2, 5"."""
    parts: list[str] = []
    for i, number in enumerate(numbers):
        if i and numbers[i - 1] == number - 1:
            parts[-1] = f"{parts[-1].split('-')[0]}-{number}"
        else:
            parts.append(str(number))
    return ", ".join(parts)
