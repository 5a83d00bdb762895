"""Where tensors stand in a file, so that a filesystem can clone their blocks instead of copying them.

XFS and btrfs share whole blocks: bytes can be cloned only where source and target lie the same
within a block of 4096. The header may end in spaces, which shifts all data of a file at once, and
the order of tensors within a file is free.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .content import Copy
from .move import BLOCK
from .segments import segments_of
from .tensor import DTYPE_BITS

if TYPE_CHECKING:
    from .plan import PlannedTensor
    from .tensor import Tensor

_SPARE = 1 << 20
"""Bytes that may be copied before another order is looked for."""


def arrange(tensors: Sequence[PlannedTensor], sources: Mapping[str, Tensor]) -> tuple[PlannedTensor, ...]:
    """An order in which tensors are aligned to their dtype and, if one is found, nearly all can be cloned."""
    order = tuple(tensors)
    if not _is_aligned(order):
        # Wider dtypes first, as the official writer has it: every tensor is aligned to its own size.
        order = tuple(sorted(order, key=lambda tensor: -DTYPE_BITS[tensor.dtype]))
    elif _copied(order, sources) > _SPARE:
        other = _chained(order, sources)
        if _is_aligned(other) and _copied(other, sources) < _copied(order, sources):
            return other
    return order


def shift_of(tensors: Sequence[PlannedTensor], sources: Mapping[str, Tensor]) -> int | None:
    """Where the data should begin, modulo 4096 and a multiple of 8, so that most bytes can be cloned."""
    shifts: Counter[int] = Counter()
    for segment in segments_of(tensors, sources, 0):
        if segment.source is not None:
            shifts[(segment.offset - segment.position) % BLOCK] += segment.nbytes
    return next((shift for shift, _ in shifts.most_common() if shift % 8 == 0), None)


def _copied(tensors: Sequence[PlannedTensor], sources: Mapping[str, Tensor]) -> int:
    segments = segments_of(tensors, sources, shift_of(tensors, sources) or 0)
    return sum(s.nbytes for s in segments if s.source is not None and not s.is_congruent)


def _is_aligned(tensors: Sequence[PlannedTensor]) -> bool:
    position = 0
    for tensor in tensors:
        if position % max(1, DTYPE_BITS[tensor.dtype] // 8):
            return False
        position += tensor.nbytes
    return True


def _chained(tensors: Sequence[PlannedTensor], sources: Mapping[str, Tensor]) -> tuple[PlannedTensor, ...]:
    """New tensors first, then the input's, which lie right among themselves as they did in the input.

    The new ones are placed from the last to the first: before each comes the one before it, or any
    other that ends right if it is cloned. Zeros and computed values are right anywhere. When all that
    is left ends wrong, the smallest that shifts the rest comes next.
    """
    new = [tensor for tensor in tensors if tensor.is_new]
    kept = [tensor for tensor in tensors if not tensor.is_new]
    ends = [_end(tensor, sources) for tensor in new]
    waiting: defaultdict[int | None, deque[int]] = defaultdict(deque)
    for number in reversed(range(len(new))):
        waiting[ends[number]].append(number)
    smallest = deque(sorted(range(len(new)), key=lambda i: (new[i].nbytes % BLOCK == 0, new[i].nbytes)))
    position = _meeting_point(new, kept, sources)
    order: dict[int, PlannedTensor] = {}
    number = len(new)
    while len(order) < len(new):
        before = [number - 1] if number > 0 and ends[number - 1] in (None, position) else []
        for queue in (deque(before), waiting[position], waiting[None], smallest):
            while queue and queue[0] in order:
                queue.popleft()
            if queue:
                break
        number = queue.popleft()
        order[number] = new[number]
        position = (position - new[number].nbytes) % BLOCK
    return (*reversed(order.values()), *kept)


def _meeting_point(new: Sequence[PlannedTensor], kept: Sequence[PlannedTensor], sources: Mapping[str, Tensor]) -> int:
    """Where within a block the new tensors end: where the input's begin, or where the largest copy's source ends."""
    for tensor in kept:
        if isinstance(tensor.content, Copy):
            return sources[tensor.content.source].offset % BLOCK
    ends = [(tensor.nbytes, end) for tensor in new if (end := _end(tensor, sources)) is not None]
    return max(ends)[1] if ends else 0


def _end(tensor: PlannedTensor, sources: Mapping[str, Tensor]) -> int | None:
    """Where the source of a copy ends within a block; None for what is not copied as it is."""
    if not isinstance(tensor.content, Copy):
        return None
    source = sources[tensor.content.source]
    return (source.offset + source.nbytes) % BLOCK
