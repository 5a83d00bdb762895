"""Does a grown checkpoint still hold what its record promises: the base's tensors, and zeros?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .apply import read_chunks
from .errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .checkpoint import Checkpoint
    from .header import Tensor
    from .record import Step


def broken_promises(grown: Checkpoint, base: Checkpoint) -> tuple[str, ...]:
    """Sentences about tensors that differ from the record's word, byte by byte; none if all is as promised.

    A base tensor must stand unchanged at the place the index map gives it, unless the record says it
    was changed, and a tensor recorded as zero must be zero. Other new tensors are free.

    Args:
        grown: With a record.
        base: What it was grown from: the first base, or the model before its last steps.

    Raises:
        CheckpointError: `grown` has no record.
    """
    if grown.record is None:
        raise CheckpointError(f"{grown.path}: no growth.json, so nothing says how it was grown")
    done = len(base.record.steps) if base.record else 0
    steps = grown.record.steps[done:]
    changed = set(grown.record.changed)
    found, carried = [], set()
    for name, tensor in base.tensors.items():
        place = rename(name, steps)
        carried.add(place)
        other = grown.tensors.get(place)
        if other is None:
            found.append(f"{place} is missing; it is {name} of the base")
        elif place in changed:
            continue
        elif (other.dtype, other.shape) != (tensor.dtype, tensor.shape):
            found.append(
                f"{place} is {other.dtype} {list(other.shape)}, the base has {tensor.dtype} {list(tensor.shape)}"
            )
        elif any(a != b for a, b in zip(read_chunks(other), read_chunks(tensor), strict=True)):
            found.append(f"{place} differs from {name} of the base")
    for name in (zeroed for zeroed in grown.record.zeroed if zeroed not in carried):
        if name in grown.tensors and not _is_zero(grown.tensors[name]):
            found.append(f"{name} should be zero, and is not")
    return tuple(found)


def _is_zero(tensor: Tensor) -> bool:
    return all(chunk.count(0) == len(chunk) for chunk in read_chunks(tensor))


def rename(name: str, steps: tuple[Step, ...]) -> str:
    """What a tensor is called after some steps, by their index maps."""
    for step in steps:
        name = _rename_once(name, step.index_map)
    return name


def _rename_once(name: str, index_map: Mapping[str, tuple[int, ...]]) -> str:
    for stack, places in index_map.items():
        if name.startswith(stack + "."):
            number, dot, inner = name[len(stack) + 1 :].partition(".")
            if dot and number.isdecimal() and int(number) < len(places):
                return f"{stack}.{places[int(number)]}.{inner}"
    return name
