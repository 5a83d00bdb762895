"""Which stacks grow together: the one that was asked for, its partners, and what stands at every n-th block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, PlanError
from .order import Order, order_blocks, resolve
from .renumber import new_stride, renumbered
from .slot import OUT
from .stacks import FoundStack, find_stacks, group_by_prefix, map_counts

if TYPE_CHECKING:
    from .anatomy import Anatomy, Gate, Last, Stack, Stride
    from .checkpoint import Checkpoint
    from .order import ExpandOptions


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One stack at one place, and what becomes of it."""

    found: FoundStack
    order: Order
    zero: tuple[str, ...]
    """Modules that are zero in a copy, where a block has them."""
    gates: tuple[Gate, ...] = ()
    last: Last | None = None

    @property
    def prefix(self) -> str:
        return self.found.prefix


def plan_growths(
    checkpoint: Checkpoint, anatomy: Anatomy, stack: Stack, options: ExpandOptions
) -> tuple[list[Growth], dict[str, Any]]:
    """What grows, the main stack first, and the config keys that change with it.

    Raises:
        PlanError: There is nothing to copy, or the growth does not come out even.
        CheckpointError: Config and tensors do not agree.
    """
    places = find_stacks(checkpoint, anatomy, stack)
    if not places:
        raise PlanError(f"{checkpoint.path}: stack {stack.name!r} has no blocks, so there is nothing to copy")
    silent = options.init == "zero"
    always, if_present = anatomy.zero_of(checkpoint.config, stack)
    growths = [
        Growth(
            found=found,
            order=order_of(options, found.depth),
            zero=(*always, *if_present, OUT) if silent else (),
            gates=stack.gates if silent else (),
            last=stack.last,
        )
        for found in places
    ]
    main = growths[0]
    edits = _counts(checkpoint, anatomy, stack, options)
    edits |= renumbered(anatomy, stack, checkpoint.config, main.order)
    for partner in stack.partners:
        found = find_partner(checkpoint, partner.name, partner.zero)
        if found.depth != main.found.depth:
            raise CheckpointError(
                f"{checkpoint.path}: {partner.name} has {found.depth} blocks and {main.prefix} {main.found.depth}; "
                "this architecture has as many of both"
            )
        growths.append(Growth(found=found, order=main.order, zero=(*partner.zero, OUT) if silent else ()))
    for stride in stack.strides:
        growths += _at_stride(checkpoint, anatomy, stride, main.order, edits)
    return growths, edits


def order_of(options: ExpandOptions, depth: int) -> Order:
    """The blocks of the output for a stack of `depth` blocks. Raises `PlanError`."""
    blocks, group = resolve(options, depth)
    return order_blocks(options.mode, depth=depth, blocks=blocks, group=group)


def _counts(checkpoint: Checkpoint, anatomy: Anatomy, stack: Stack, options: ExpandOptions) -> dict[str, Any]:
    values = {key: anatomy.value(checkpoint.config, key) for key in stack.count_keys}
    first = values[stack.count_keys[0]]
    silent = [key for key, value in values.items() if value is None]
    if silent and isinstance(first, list | tuple) and any(isinstance(item, list | tuple) for item in first):
        raise PlanError(
            f"{checkpoint.path}: config.json counts {stack.count_keys[0]} layer by layer and leaves {silent[0]} open, "
            "which the class then fills with 1, whatever has grown; write the number of blocks there first"
        )
    return {
        key: map_counts(value, lambda depth: len(order_of(options, depth).sources))
        for key, value in values.items()
        if value is not None
    }


def _at_stride(
    checkpoint: Checkpoint, anatomy: Anatomy, stride: Stride, order: Order, edits: dict[str, Any]
) -> list[Growth]:
    """What stands at every n-th block keeps its blocks; places that the new stride adds get silent copies."""
    steps = new_stride(anatomy, stride, checkpoint.config, order)
    if steps is None:
        return []
    before, after = steps
    edits[stride.key] = after
    if stride.stack is None:
        return []
    found = find_partner(checkpoint, stride.stack, stride.zero)
    kept = {place // after: number for number, place in enumerate(order.index_map[::before])}
    if found.depth != len(kept):
        raise CheckpointError(
            f"{checkpoint.path}: {stride.stack} has {found.depth} blocks, {stride.key} = {before} asks for {len(kept)}"
        )
    sources, latest = [], 0
    for place in range(len(order.sources) // after):
        latest = kept.get(place, latest)
        sources.append(latest)
    new = tuple(place not in kept for place in range(len(sources)))
    return [Growth(found=found, order=Order(sources=tuple(sources), is_new=new), zero=stride.zero)]


def find_partner(checkpoint: Checkpoint, prefix: str, zero: tuple[str, ...] = ()) -> FoundStack:
    """A stack that no config key counts, each of its blocks with the modules in `zero`. Raises `CheckpointError`."""
    blocks = group_by_prefix(checkpoint.tensors, prefix).get(prefix, {})
    if not blocks or sorted(blocks) != list(range(len(blocks))):
        raise CheckpointError(f"{checkpoint.path}: no tensors, or not all, of {prefix}.0, {prefix}.1, ... are there")
    for number, block in blocks.items():
        for module in zero:
            if f"{module}.weight" not in block:
                raise CheckpointError(f"{checkpoint.path}: {prefix}.{number}.{module}.weight is not in the file")
    return FoundStack(prefix=prefix, blocks=tuple(blocks[i] for i in range(len(blocks))))
