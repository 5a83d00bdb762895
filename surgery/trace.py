"""Where a tensor of the base stands after some steps: renumbered, or rebuilt from other tensors' rows."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from .content import Piece, cut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .step import Step

NUMBER = re.compile(r"(0|[1-9][0-9]{0,8})\.", re.ASCII)
"""A block's number in a tensor's name, and the dot after it."""


def rename(name: str, steps: Sequence[Step]) -> str:
    """What a tensor (or anything else whose name holds a block's number) is called after `steps`."""
    for step in steps:
        name = rename_once(name, step.index_map)
    return name


def rename_once(name: str, index_map: Mapping[str, tuple[int, ...]]) -> str:
    """The name after one step. Names outside all stacks, and numbers beyond their ends, stay."""
    for stack, places in index_map.items():
        if name.startswith(stack + "."):
            match = NUMBER.match(name, len(stack) + 1)
            if match is not None and int(match[1]) < len(places):
                return f"{stack}.{places[int(match[1])]}.{name[match.end() :]}"
    return name


def names_after(name: str, steps: Sequence[Step]) -> tuple[str, ...]:
    """The tensors that hold a tensor's values after `steps`: one, or several where it was taken apart."""
    names: tuple[str, ...] = (name,)
    for step in steps:
        names = tuple(dict.fromkeys(after for before in names for after in _names_once(before, step)))
    return names


def listed(steps: Sequence[Step], kind: Literal["new", "changed"], *, since: int = 0) -> tuple[str, ...]:
    """The tensors that the steps from number `since` on made new, or changed, as they are called after the last one."""
    found = (
        now
        for number, step in enumerate(steps[since:], since + 1)
        for name in getattr(step, kind)
        for now in names_after(name, steps[number:])
    )
    return tuple(dict.fromkeys(found))


def _names_once(name: str, step: Step) -> tuple[str, ...]:
    if name in step.rebuilt:
        return tuple(part.source for part in step.rebuilt[name] if part.source is not None)
    return (rename_once(name, step.index_map),)


def pieces_after(name: str, rows: int, steps: Sequence[Step]) -> tuple[Piece, ...]:
    """The rows that make up a tensor of `rows` rows again after `steps`."""
    pieces: tuple[Piece, ...] = (Piece(source=name, start=0, stop=rows),)
    for step in steps:
        pieces = tuple(after for before in pieces for after in _pieces_once(before, step))
    return pieces


def _pieces_once(piece: Piece, step: Step) -> list[Piece]:
    name = piece.source
    if name is None:
        return [piece]
    if name not in step.rebuilt:
        return [replace(piece, source=rename_once(name, step.index_map))]
    return cut(step.rebuilt[name], piece.start, piece.stop)
