"""Does a grown checkpoint still hold what its record promises: the base's tensors, and zeros?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .content import rows_of
from .errors import CheckpointError
from .readback import read_chunks, same_bytes
from .trace import pieces_after, rename, rename_once

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .step import Step
    from .tensor import Tensor


def broken_promises(grown: Checkpoint, base: Checkpoint) -> tuple[str, ...]:
    """Sentences about tensors that differ from the record's word, byte by byte; none if all is as promised.

    A base tensor must stand unchanged at the place the index map gives it, or its rows where the record
    says that it was taken apart; one that was changed for good is free. What is recorded as zero, whole
    tensors and rows, must be zero. Other new tensors are free.

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
    changed = grown.record.changed_since(done)
    found: list[str] = []
    carried: set[str] = set()
    for name, tensor in base.tensors.items():
        if _is_taken_apart(name, steps):
            found += _compare_rows(name, tensor, grown, steps)
            continue
        place = rename(name, steps)
        carried.add(place)
        if place not in changed:
            found += _compare(place, grown.tensors.get(place), name, tensor)
    return (*found, *_not_zero(grown, carried))


def _is_taken_apart(name: str, steps: Sequence[Step]) -> bool:
    for step in steps:
        if name in step.rebuilt:
            return True
        name = rename_once(name, step.index_map)
    return False


def _compare(place: str, now: Tensor | None, name: str, tensor: Tensor) -> list[str]:
    if now is None:
        return [f"{place} is missing; it is {name} of the base"]
    if (now.dtype, now.shape) != (tensor.dtype, tensor.shape):
        return [f"{place} is {now.dtype} {list(now.shape)}, the base has {tensor.dtype} {list(tensor.shape)}"]
    return [] if same_bytes(now, tensor) else [f"{place} differs from {name} of the base"]


def _compare_rows(name: str, tensor: Tensor, grown: Checkpoint, steps: Sequence[Step]) -> list[str]:
    done = 0
    for (start, stop), piece in rows_of(pieces_after(name, tensor.shape[0] if tensor.shape else 0, steps)):
        now = grown.tensors.get(str(piece.source))
        if now is None:
            return [f"{piece.source} is missing; it holds rows of {name} of the base"]
        fits = (now.dtype, now.shape[1:]) == (tensor.dtype, tensor.shape[1:]) and piece.stop <= now.shape[0]
        if not fits or not same_bytes(_rows(now, piece.start, piece.stop), _rows(tensor, start, stop)):
            return [f"rows {piece.start} to {piece.stop} of {piece.source} differ from {name} of the base"]
        done = stop
    return [] if tensor.shape and done == tensor.shape[0] else [f"{name} of the base is not all in the grown model"]


def _not_zero(grown: Checkpoint, carried: set[str]) -> Iterator[str]:
    """Faults among what is recorded as zero; tensors that the base holds already are free to be what they are there."""
    if grown.record is None:
        return
    for name in grown.record.zeroed:
        if name not in carried and name in grown.tensors and not _is_zero(grown.tensors[name]):
            yield f"{name} should be zero, and is not"
    for name, ranges in grown.record.zeroed_rows.items():
        tensor = grown.tensors.get(name)
        for start, stop in ranges if tensor is not None and name not in carried else ():
            if tensor is not None and not (tensor.shape and 0 <= start <= stop <= tensor.shape[0]):
                yield f"{name} should have zeros in rows {start} to {stop}, and has not as many rows"
            elif tensor is not None and not _is_zero(_rows(tensor, start, stop)):
                yield f"rows {start} to {stop} of {name} should be zero, and are not"


def _rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    """A range of rows of the first axis, which the caller has checked."""
    row = tensor.nbytes // tensor.shape[0] if tensor.shape and tensor.shape[0] else 0
    return replace(
        tensor, shape=(stop - start, *tensor.shape[1:]), offset=tensor.offset + row * start, nbytes=row * (stop - start)
    )


def _is_zero(tensor: Tensor) -> bool:
    return all(chunk.count(0) == len(chunk) for chunk in read_chunks(tensor))
