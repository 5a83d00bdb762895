"""What an architecture is made of, as data: one TOML file per class in `anatomies/`.

An anatomy is declared, never inferred: a key that is not known is an error, and so is a checkpoint
that does not fit. Tensors that no stack mentions are carried through untouched. `docs/anatomy.md`
explains every key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import AnatomyError
from .positions import Frames, FramesVariant, check_frames

if TYPE_CHECKING:
    from pathlib import Path

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A modulation whose rows come in equal chunks, some of which scale a residual branch."""

    module: str
    chunks: int
    zero: tuple[int, ...]
    """Chunks that are zero in a copy, weight and bias."""
    without: str | None = None
    """Only in blocks that lack this module."""


@dataclass(frozen=True, kw_only=True)
class Last:
    """The last block writes no text: what its modulation is called, and how it becomes an inner block's."""

    module: str
    inner_module: str
    chunks: tuple[int, ...]
    """For every chunk of the inner module: the last one's chunk that it takes, or -1 for zeros."""
    borrow: tuple[str, ...]
    """Modules that only inner blocks have. A block that becomes an inner one takes those of the block before it;
    its zero gates keep them silent until they are trained."""


@dataclass(frozen=True, kw_only=True)
class Partner:
    """A stack that has a block for each block of the main one and grows in step with it."""

    name: str
    zero: tuple[str, ...]
    slot: bool = False
    """Whether its blocks get slots where the main one's do."""


@dataclass(frozen=True, kw_only=True)
class Renumber:
    """A config key that speaks of block numbers."""

    key: str
    kind: str
    """"copies": a list of blocks, and a copy of a listed one is listed too. "originals": a list of blocks,
    without copies. "original": one block. "below": the blocks below this number are of another kind."""


@dataclass(frozen=True, kw_only=True)
class Stride:
    """Something happens at every n-th block, n being a config key."""

    key: str
    stack: str | None = None
    """A stack that holds what happens there; new places get zeroed copies. Without one there can be no new places."""
    zero: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Where a growth is not the same function, or not possible."""

    reason: str
    modes: tuple[str, ...] = ("insert", "prefix", "suffix")
    when: Mapping[str, Any] = field(default_factory=dict)
    """Config values under which it holds; always if empty."""
    impossible: bool = False
    """Whether the class could not even be built; otherwise `allow_inexact` overrules the refusal."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Other tensors to zero under some config values."""

    when: Mapping[str, Any]
    zero: tuple[str, ...]
    zero_if_present: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Blocks that can have a cross-attention to a language model's states behind them."""

    width: str
    """A module whose weight has as many rows as the block's video stream is wide."""
    output: int = 0
    """Where the video stands in what a block returns, if it returns several streams."""
    path: str | None = None
    """The place of such blocks, where only some of the stack's are."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Blocks, one after another, that a config key counts."""

    name: str
    """What it is called; also its place, unless `path` says otherwise."""
    count_keys: tuple[str, ...]
    """The config keys that say how many blocks there are."""
    zero: tuple[str, ...] = ()
    """Modules inside a block whose weight (and bias, where there is one) must be zero in a copy, so that the
    copy adds nothing to the residual stream. Every block has them."""
    zero_if_present: tuple[str, ...] = ()
    """Likewise, for modules that only some blocks have."""
    path: str | None = None
    """Prefix of the blocks' tensors, block i holding `{path}.{i}.*`. `*` stands for one or more parts of a
    name: all stacks that match grow alike."""
    kind: str = "blocks"
    """"blocks", or "unet_layers": the layers of a UNet's down and up blocks, whose skips come in pairs."""
    gates: tuple[Gate, ...] = ()
    last: Last | None = None
    partners: tuple[Partner, ...] = ()
    renumber: tuple[Renumber, ...] = ()
    strides: tuple[Stride, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    variants: tuple[Variant, ...] = ()
    slot: Slot | None = None
    """None where no slot can stand: the blocks see no video, or nothing runs them."""
    shifts: tuple[str, ...] = ()
    """What else refers to block numbers at run time and does not follow by itself; for a note to the user."""

    @property
    def place(self) -> str:
        return self.path or self.name


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """One architecture."""

    class_name: str
    family: str
    text: str
    """Where the prompt enters."""
    frames: Frames
    stacks: tuple[Stack, ...]
    """The first one is the one that grows unless another is named."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """The class's own values of config keys that are named here, for configs that leave them out."""
    lora_aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of stacks in LoRA files: alias -> stack."""
    runs_as: str | None = None
    """The class that diffusers makes of it, where config.json names one that it only stands in for."""

    def stack(self, name: str | None) -> Stack:
        """The stack of that name; the first one if no name is given. Raises `AnatomyError`."""
        for stack in self.stacks:
            if name is None or stack.name == name:
                return stack
        names = ", ".join(stack.name for stack in self.stacks)
        raise AnatomyError(f"{self.class_name} has no stack {name!r}; it has: {names}")

    def value(self, config: Mapping[str, Any], key: str) -> Any:
        """What a config says of a key, or the class's default where it says nothing."""
        return config.get(key, self.defaults.get(key))

    def zero_of(self, config: Mapping[str, Any], stack: Stack) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The modules to zero in a copy under a config: those that every block has, and those that some have."""
        for variant in stack.variants:
            if self.holds(config, variant.when):
                return variant.zero, variant.zero_if_present
        return stack.zero, stack.zero_if_present

    def holds(self, config: Mapping[str, Any], when: Mapping[str, Any]) -> bool:
        """Whether a config has all the values of a condition."""
        return all(self.value(config, key) == wanted for key, wanted in when.items())

    def frames_of(self, config: Mapping[str, Any]) -> Frames:
        """What bounds the length of a clip under a config: the first variant that holds, over the rest."""
        for variant in self.frames.variants:
            if self.holds(config, variant.when):
                return self.frames.under(variant)
        return self.frames


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
