"""From growths to the tensors of a plan: the input's at their new places, then the new blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .blocks import KINDS, as_inner, copy_block, rebuild_last, silence
from .errors import PlanError
from .plan import PlannedTensor

if TYPE_CHECKING:
    from .blocks import BlockTensor
    from .checkpoint import Checkpoint
    from .content import Piece
    from .growths import Growth


def carried(checkpoint: Checkpoint, growths: list[Growth]) -> tuple[list[PlannedTensor], dict[str, tuple[Piece, ...]]]:
    """The input's tensors in their order, and how to make again those that had to change their form."""
    renamed = {
        name: f"{growth.prefix}.{growth.order.index_map[number]}.{inner}"
        for growth in growths
        for number, block in enumerate(growth.found.blocks)
        for inner, name in block.items()
    }
    changed: dict[str, PlannedTensor] = {}
    rebuilt: dict[str, tuple[Piece, ...]] = {}
    lent: list[PlannedTensor] = []
    for growth in growths:
        if growth.last and growth.order.is_new[-1]:
            _open_last(checkpoint, growth, changed, rebuilt, lent)
    tensors = [
        changed.get(name) or PlannedTensor.copy_of(tensor, name, name=renamed.get(name))
        for name, tensor in checkpoint.tensors.items()
    ]
    return [*tensors, *lent], rebuilt


def _open_last(
    checkpoint: Checkpoint,
    growth: Growth,
    changed: dict[str, PlannedTensor],
    rebuilt: dict[str, tuple[Piece, ...]],
    lent: list[PlannedTensor],
) -> None:
    """The input's last block is an inner one in the output."""
    if growth.last is None:
        return
    place = f"{growth.prefix}.{growth.order.index_map[-1]}"
    old, block = growth.found.blocks[-1], _inner_form(checkpoint, growth)
    for kind in KINDS:
        before, after = old.get(f"{growth.last.module}.{kind}"), f"{growth.last.inner_module}.{kind}"
        if before is not None:
            changed[before] = _planned(f"{place}.{after}", block[after])
            rebuilt |= {before: rebuild_last(growth.last, f"{place}.{after}", block[after].shape[0])}
    lent += [
        _planned(f"{place}.{inner}", part, new_in=place)
        for inner, part in block.items()
        if inner not in old and not inner.startswith(f"{growth.last.inner_module}.")
    ]


def copies(checkpoint: Checkpoint, growth: Growth) -> list[PlannedTensor]:
    """The new blocks of one stack."""
    depth, places = growth.found.depth, len(growth.order.sources)
    planned = []
    for place, source in growth.order.copied_from.items():
        opened = growth.last if source == depth - 1 and place != places - 1 else None
        block = _inner_form(checkpoint, growth) if opened else copy_block(checkpoint, growth.found, source)
        block = silence(
            block, zero=growth.zero, gates=growth.gates, keep=frozenset(opened.borrow) if opened else frozenset()
        )
        name = f"{growth.prefix}.{place}"
        planned += [_planned(f"{name}.{inner}", part, new_in=name) for inner, part in block.items()]
    return planned


def _inner_form(checkpoint: Checkpoint, growth: Growth) -> dict[str, BlockTensor]:
    depth = growth.found.depth
    where = f"{checkpoint.path}: {growth.prefix}.{depth - 1}"
    if growth.last is None or depth < 2:
        raise PlanError(f"{where}: writes no text, and there is no other block that shows how one that does looks")
    last, before = (copy_block(checkpoint, growth.found, depth - i) for i in (1, 2))
    return as_inner(last, growth.last, before, where=where)


def _planned(name: str, part: BlockTensor, *, new_in: str | None = None) -> PlannedTensor:
    return PlannedTensor(
        name=name, dtype=part.dtype, shape=part.shape, content=part.content, is_new=new_in is not None, part=new_in
    )
