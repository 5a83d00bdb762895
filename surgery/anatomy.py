"""What an architecture is made of, as data.

An anatomy is declared, never inferred, by one TOML file per class in `anatomies/`, which
`anatomy_files` reads. Tensors that no stack mentions are carried through untouched.
`docs/anatomy.md` explains every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import AnatomyError
from .positions import Frames


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
