"""Config keys that count blocks or speak of their numbers, after growth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, PlanError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .anatomy import Anatomy, Renumber, Stack, Stride
    from .order import Order


def renumbered(anatomy: Anatomy, stack: Stack, config: Mapping[str, Any], order: Order) -> dict[str, Any]:
    """New values of the keys that a stack declares in `renumber`; a default that still holds is not written.

    Raises:
        CheckpointError: A value speaks of no block.
    """
    edits = {}
    for rule in stack.renumber:
        before = anatomy.value(config, rule.key)
        after = None if before is None else _renumber(rule, before, order)
        if after is not None and (rule.key in config or after != before):
            edits[rule.key] = after
    return edits


def _renumber(rule: Renumber, value: Any, order: Order) -> Any:
    depth = len(order.index_map)
    if rule.kind == "below":
        if type(value) is not int or value < 0:
            raise CheckpointError(f"config.json has {rule.key} = {value!r:.80}, expected a number of blocks")
        return max(value, len(order.sources)) if value >= depth else sum(s < value for s in order.sources)
    if rule.kind == "original":
        if type(value) is not int or not 0 <= value < depth:
            raise CheckpointError(f"config.json has {rule.key} = {value!r:.80}, expected a block number below {depth}")
        return order.index_map[value]
    if not isinstance(value, list | tuple) or not all(type(i) is int and 0 <= i < depth for i in value):
        raise CheckpointError(f"config.json has {rule.key} = {value!r:.80}, expected block numbers below {depth}")
    listed = set(value)
    return [
        place
        for place, (source, new) in enumerate(zip(order.sources, order.is_new, strict=True))
        if source in listed and not (new and rule.kind == "originals")
    ]


def new_stride(anatomy: Anatomy, stride: Stride, config: Mapping[str, Any], order: Order) -> tuple[int, int] | None:
    """A stride before and after growth; None where the config has none.

    What happened at blocks 0, n, 2n ... of the input must happen at the same blocks of the output, so the
    new stride is the greatest common divisor of their new numbers and the new depth.

    Raises:
        CheckpointError: The stride is no number that divides the depth.
        PlanError: The blocks no longer lie at equal distances, and there is nothing to put in between.
    """
    value = anatomy.value(config, stride.key)
    if value is None:
        return None
    places, depth = order.index_map, len(order.sources)
    if type(value) is not int or value < 1 or (stride.stack and len(places) % value):
        raise CheckpointError(
            f"config.json has {stride.key} = {value!r:.80}, expected a number that divides the {len(places)} blocks"
        )
    kept = places[::value]
    if stride.stack:
        return value, math.gcd(depth, *kept)
    step = kept[1] if len(kept) > 1 else max(depth, 1)
    if list(kept) != list(range(0, depth, step)):
        raise PlanError(
            f"not possible: {stride.key} = {value} means every {value}-th block, and after this growth those are "
            f"blocks {', '.join(map(str, kept))}, at no equal distances. Choose --mode insert with equal groups"
        )
    return value, step
