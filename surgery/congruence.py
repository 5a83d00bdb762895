"""Where tensors stand in a file, so that a filesystem can clone their blocks instead of copying them.

XFS and btrfs share whole blocks: bytes can be cloned only where source and target lie the same
within a block of 4096. The header may end in spaces, which shifts all data of a file at once, and
the order of tensors within a file is free.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .header import DTYPE_BITS
from .move import BLOCK
from .plan import Copy
from .segments import segments_of

if TYPE_CHECKING:
    from .header import Tensor
    from .plan import PlannedTensor

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
    """The tensors in another order: after each comes its next one, or else any whose source lies right for it.

    Zeros and computed values lie right anywhere. What lies wrong waits; when all that is left lies
    wrong, the smallest that shifts the rest goes first.
    """
    places = [_residue(tensor, sources) for tensor in tensors]
    waiting: defaultdict[int | None, deque[int]] = defaultdict(deque)
    for number, place in enumerate(places):
        waiting[place].append(number)
    by_size = sorted(range(len(tensors)), key=lambda i: (tensors[i].nbytes % BLOCK == 0, tensors[i].nbytes))
    smallest = deque(by_size)
    order: dict[int, PlannedTensor] = {}
    position = next((place for place in places if place is not None), 0)
    successor = 0
    while len(order) < len(tensors):
        right = successor < len(tensors) and places[successor] in (None, position)
        for queue in (deque([successor] if right else []), waiting[position], waiting[None], smallest):
            while queue and queue[0] in order:
                queue.popleft()
            if queue:
                break
        number = queue.popleft()
        order[number] = tensors[number]
        position = (position + tensors[number].nbytes) % BLOCK
        successor = number + 1
    return tuple(order.values())


def _residue(tensor: PlannedTensor, sources: Mapping[str, Tensor]) -> int | None:
    return sources[tensor.content.source].offset % BLOCK if isinstance(tensor.content, Copy) else None
