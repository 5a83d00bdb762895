"""A declared stack as it stands in a checkpoint: found, counted, checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError

if TYPE_CHECKING:
    from .anatomy import Anatomy, Stack
    from .checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class FoundStack:
    """The blocks below one prefix: for every block, its tensors' names inside the block -> their whole names."""

    prefix: str
    blocks: tuple[Mapping[str, str], ...]

    @property
    def depth(self) -> int:
        return len(self.blocks)


_NUMBER = re.compile(r"\s*[-+]?\d{1,1000}(_\d{1,1000})?\s*")
"""What Python's int() takes for a number, in any script."""
_PLAIN = re.compile(r"0|[1-9][0-9]{0,8}")


def check_stacks(checkpoint: Checkpoint, anatomy: Anatomy) -> None:
    """Check every stack, for an operation that does not look for the blocks of each. Raises as `find_stacks` does."""
    for stack in anatomy.stacks:
        if stack.kind == "blocks":
            find_stacks(checkpoint, anatomy, stack)


def find_stacks(checkpoint: Checkpoint, anatomy: Anatomy, stack: Stack) -> tuple[FoundStack, ...]:
    """Every place of a stack: one, several where its path has a `*`, none where the config counts no blocks.

    Raises:
        CheckpointError: Tensors, numbering and config do not agree, or a tensor to zero is not there.
    """
    where = f"{checkpoint.path}: stack {stack.name!r}"
    counts = _counts(checkpoint, anatomy, stack, where)
    _check_numbers(checkpoint.tensors, stack.place, where)
    found = tuple(
        _ordered(prefix, blocks, counts, stack, where)
        for prefix, blocks in group_by_prefix(checkpoint.tensors, stack.place).items()
    )
    if not found and any(depth for leaves in counts.values() for depth in leaves):
        raise CheckpointError(
            f"{where}: no tensor is called {stack.place}.0.*; the file is not in diffusers' layout for "
            f"{checkpoint.class_name}"
        )
    zero = anatomy.zero_of(checkpoint.config, stack)[0]
    for place in found:
        for i, block in enumerate(place.blocks):
            for module in zero:
                if f"{module}.weight" not in block:
                    raise CheckpointError(f"{where}: {place.prefix}.{i}.{module}.weight is not in the file")
    return found


def _check_numbers(names: Iterable[str], place: str, where: str) -> None:
    """Raises `CheckpointError` for a block whose number would be passed by: 01, -1 or one in another script."""
    start = f"{place}."
    for name in names if "*" not in place else ():
        if name.startswith(start) and odd_number(name[len(start) :].partition(".")[0]) is not None:
            raise CheckpointError(
                f"{where}: {name!r:.200} does not number its block as 0, 1, 2 and so on, so nobody knows which it is"
            )


def odd_number(part: str) -> int | None:
    """What a part of a name reads as that is no block's number as they are written; None for any other part."""
    return int(part) if _NUMBER.fullmatch(part) and not _PLAIN.fullmatch(part) else None


def _ordered(
    prefix: str,
    blocks: Mapping[int, Mapping[str, str]],
    counts: Mapping[str, tuple[int, ...]],
    stack: Stack,
    where: str,
) -> FoundStack:
    depths = {depth for leaves in counts.values() for depth in leaves}
    if sorted(blocks) != list(range(len(blocks))) or len(blocks) not in depths:
        said = ", ".join(f"{key} = {_list(leaves)}" for key, leaves in counts.items())
        numbers = f"{ranges(sorted(blocks)):.200}"
        there = f" of {prefix}" if prefix != stack.name else ""
        raise CheckpointError(f"{where}: config.json says {said}, the tensors{there} hold blocks {numbers}")
    return FoundStack(prefix=prefix, blocks=tuple(blocks[i] for i in range(len(blocks))))


def _list(leaves: tuple[int, ...]) -> str:
    return str(leaves[0]) if len(set(leaves)) == 1 else str(list(leaves))


def _counts(checkpoint: Checkpoint, anatomy: Anatomy, stack: Stack, where: str) -> dict[str, tuple[int, ...]]:
    counts = {}
    for key in stack.count_keys:
        value = anatomy.value(checkpoint.config, key)
        if value is None and key != stack.count_keys[0]:
            continue
        leaves = tuple(_leaves(value))
        nested = "*" in stack.place or stack.kind != "blocks"
        if (
            not leaves
            or not all(type(leaf) is int and leaf >= 0 for leaf in leaves)
            or not (nested or value == leaves[0])
        ):
            raise CheckpointError(f"{where}: config.json has {key} = {value!r:.80}, expected a number of blocks")
        counts[key] = leaves
    return counts


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def map_counts(value: Any, grown: Callable[[int], int]) -> Any:
    """A config value that counts blocks, with every number in it grown. None stays None."""
    if isinstance(value, list | tuple):
        return [map_counts(item, grown) for item in value]
    return None if value is None else grown(value)


def group_by_prefix(names: Iterable[str], place: str) -> dict[str, dict[int, dict[str, str]]]:
    """Prefix -> block number -> name inside the block -> whole name, for all prefixes that `place` matches.

    `*` in `place` stands for one or more parts of a name. Numbers are ASCII digits without leading zeros.
    """
    prefix = r"[^.]+(?:\.[^.]+)*?".join(re.escape(part) for part in place.split("*"))
    pattern = re.compile(rf"({prefix})\.(0|[1-9][0-9]{{0,8}})\.(.+)", re.DOTALL)
    found: dict[str, dict[int, dict[str, str]]] = {}
    for name in names:
        if match := pattern.fullmatch(name):
            found.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = name
    return found


def ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] to "0-2, 5"."""
    parts: list[str] = []
    for i, number in enumerate(numbers):
        if i and numbers[i - 1] == number - 1:
            parts[-1] = f"{parts[-1].split('-')[0]}-{number}"
        else:
            parts.append(str(number))
    return ", ".join(parts)
