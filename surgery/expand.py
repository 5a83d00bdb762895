"""Depth: ModelGrow's expansion by block duplication (arXiv 2412.18966), for every declared architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .blocks import KINDS, as_inner, copy_block, rebuild_last, silence
from .errors import CheckpointError, PlanError
from .order import Order, order_blocks, resolve
from .plan import Copy, Piece, Plan, PlannedTensor
from .renumber import new_stride, renumbered
from .stacks import FoundStack, find_stacks, group_by_prefix, map_counts

if TYPE_CHECKING:
    from .anatomy import Anatomy, Stack, Stride
    from .blocks import Part
    from .checkpoint import Checkpoint
    from .order import ExpandOptions

__all__ = ["plan_expand"]


@dataclass(frozen=True, kw_only=True)
class _Growth:
    """One stack at one place, and what becomes of it."""

    found: FoundStack
    order: Order
    zero: tuple[str, ...]

    @property
    def prefix(self) -> str:
        return self.found.prefix


def plan_expand(checkpoint: Checkpoint, anatomy: Anatomy, options: ExpandOptions) -> Plan:
    """Plan the growth of one stack.

    Raises:
        PlanError: It can't be done as asked, or not without changing the function.
        AnatomyError: There is no such stack.
        CheckpointError: Config and tensors do not agree.
    """
    stack = anatomy.stack(options.stack)
    warnings = _refusals(checkpoint, anatomy, stack, options)
    if stack.kind == "unet_layers":
        from .unet_layers import plan_unet_layers

        return plan_unet_layers(checkpoint, anatomy, stack, options)
    places = find_stacks(checkpoint, anatomy, stack)
    if not places:
        raise PlanError(f"{checkpoint.path}: stack {stack.name!r} has no blocks, so there is nothing to copy")
    zero = sum(anatomy.zero_of(checkpoint.config, stack), ()) if options.init == "zero" else ()
    growths = [_Growth(found=found, order=_order(options, found.depth), zero=zero) for found in places]
    edits = _counts(checkpoint, anatomy, stack, options)
    edits |= renumbered(anatomy, stack, checkpoint.config, growths[0].order)
    growths += [_in_step(checkpoint, partner.name, growths[0], partner.zero, options) for partner in stack.partners]
    for stride in stack.strides:
        growths += _at_stride(checkpoint, anatomy, stride, growths[0].order, edits)
    carried, rebuilt = _carried(checkpoint, stack, growths)
    return Plan(
        operation="expand",
        options=_resolved(options, stack, growths[0]),
        class_name=anatomy.class_name,
        tensors=(*carried, *(new for growth in growths for new in _copies(checkpoint, stack, growth, options))),
        config_edits=edits,
        index_map={growth.prefix: growth.order.index_map for growth in growths},
        copied_from={growth.prefix: growth.order.copied_from for growth in growths},
        rebuilt=rebuilt,
        notes=(*warnings, *_notes(anatomy, stack, options, growths)),
    )


def _refusals(checkpoint: Checkpoint, anatomy: Anatomy, stack: Stack, options: ExpandOptions) -> list[str]:
    """Reasons that were overruled. Raises `PlanError` for one that was not, or can't be."""
    overruled = []
    for refusal in stack.refusals:
        if options.mode not in refusal.modes or not anatomy.holds(checkpoint.config, refusal.when):
            continue
        what = f"{anatomy.class_name}, {stack.name}, --mode {options.mode}"
        if refusal.impossible:
            raise PlanError(f"{what}: not possible: {refusal.reason}")
        if options.init == "zero" and not options.allow_inexact:
            raise PlanError(
                f"{what}: would not be the same function: {refusal.reason}. Choose another mode or --stack, "
                "or say --allow-inexact"
            )
        overruled.append(f"NOT the same function: {refusal.reason}")
    return overruled


def _order(options: ExpandOptions, depth: int) -> Order:
    blocks, group = resolve(options, depth)
    return order_blocks(options.mode, depth=depth, blocks=blocks, group=group)


def _counts(checkpoint: Checkpoint, anatomy: Anatomy, stack: Stack, options: ExpandOptions) -> dict[str, Any]:
    values = {key: anatomy.value(checkpoint.config, key) for key in stack.count_keys}
    return {
        key: map_counts(value, lambda depth: len(_order(options, depth).sources))
        for key, value in values.items()
        if value is not None
    }


def _in_step(
    checkpoint: Checkpoint, prefix: str, main: _Growth, zero: tuple[str, ...], options: ExpandOptions
) -> _Growth:
    found = _find(checkpoint, prefix, zero)
    if found.depth != main.found.depth:
        raise CheckpointError(
            f"{checkpoint.path}: {prefix} has {found.depth} blocks and {main.prefix} {main.found.depth}; "
            "this architecture has as many of both"
        )
    return _Growth(found=found, order=main.order, zero=zero if options.init == "zero" else ())


def _at_stride(
    checkpoint: Checkpoint, anatomy: Anatomy, stride: Stride, order: Order, edits: dict[str, Any]
) -> list[_Growth]:
    steps = new_stride(anatomy, stride, checkpoint.config, order)
    if steps is None:
        return []
    before, after = steps
    edits[stride.key] = after
    if stride.stack is None:
        return []
    found = _find(checkpoint, stride.stack, stride.zero)
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
    return [_Growth(found=found, order=Order(sources=tuple(sources), is_new=new), zero=stride.zero)]


def _find(checkpoint: Checkpoint, prefix: str, zero: tuple[str, ...]) -> FoundStack:
    blocks = group_by_prefix(checkpoint.tensors, prefix).get(prefix, {})
    if not blocks or sorted(blocks) != list(range(len(blocks))):
        raise CheckpointError(f"{checkpoint.path}: no tensors, or not all, of {prefix}.0, {prefix}.1, ... are there")
    for number, block in blocks.items():
        for module in zero:
            if f"{module}.weight" not in block:
                raise CheckpointError(f"{checkpoint.path}: {prefix}.{number}.{module}.weight is not in the file")
    return FoundStack(prefix=prefix, blocks=tuple(blocks[i] for i in range(len(blocks))))


def _carried(
    checkpoint: Checkpoint, stack: Stack, growths: list[_Growth]
) -> tuple[list[PlannedTensor], dict[str, tuple[Piece, ...]]]:
    """The input's tensors at their new places, and how to make again what had to change its form."""
    renamed = {
        name: f"{growth.prefix}.{growth.order.index_map[number]}.{inner}"
        for growth in growths
        for number, block in enumerate(growth.found.blocks)
        for inner, name in block.items()
    }
    changed: dict[str, PlannedTensor] = {}
    rebuilt: dict[str, tuple[Piece, ...]] = {}
    lent: list[PlannedTensor] = []
    main = growths[0]
    if stack.last and main.order.is_new[-1]:
        place = f"{main.prefix}.{main.order.index_map[-1]}"
        block = _inner_form(checkpoint, stack, main.found)
        old = main.found.blocks[-1]
        for kind in KINDS:
            before, after = old.get(f"{stack.last.module}.{kind}"), f"{stack.last.inner_module}.{kind}"
            if before is not None:
                changed[before] = _planned(f"{place}.{after}", block[after])
                shape = block[after].shape
                rebuilt[before] = rebuild_last(stack.last, {kind: f"{place}.{after}"}, shape)[kind]
        lent = [
            _planned(f"{place}.{inner}", part, part_name=place)
            for inner, part in block.items()
            if inner not in old and not inner.startswith(f"{stack.last.inner_module}.")
        ]
    carried = [
        changed.get(name)
        or PlannedTensor(name=renamed.get(name, name), dtype=t.dtype, shape=t.shape, content=Copy(source=name))
        for name, t in checkpoint.tensors.items()
    ]
    return [*carried, *lent], rebuilt


def _inner_form(checkpoint: Checkpoint, stack: Stack, found: FoundStack) -> dict[str, Part]:
    where = f"{checkpoint.path}: {found.prefix}.{found.depth - 1}"
    if stack.last is None or found.depth < 2:
        raise PlanError(
            f"{where}: the only block of its stack writes no text, and no other shows how one that does looks"
        )
    last, before = (copy_block(checkpoint, found, found.depth - i) for i in (1, 2))
    return as_inner(last, stack.last, before, where=where)


def _copies(checkpoint: Checkpoint, stack: Stack, growth: _Growth, options: ExpandOptions) -> list[PlannedTensor]:
    found, planned = growth.found, []
    for place, source in growth.order.copied_from.items():
        main = growth.prefix == stack.place or "*" in stack.place
        widened = (
            main and stack.last is not None and source == found.depth - 1 and place != len(growth.order.sources) - 1
        )
        block = _inner_form(checkpoint, stack, found) if widened else copy_block(checkpoint, found, source)
        keep = frozenset(stack.last.borrow) if widened and stack.last else frozenset()
        gates = stack.gates if main and options.init == "zero" else ()
        block = silence(block, zero=growth.zero, gates=gates, keep=keep)
        name = f"{growth.prefix}.{place}"
        planned += [_planned(f"{name}.{inner}", part, part_name=name) for inner, part in block.items()]
    return planned


def _planned(name: str, part: Part, *, part_name: str | None = None) -> PlannedTensor:
    return PlannedTensor(
        name=name,
        dtype=part.dtype,
        shape=part.shape,
        content=part.content,
        is_new=part_name is not None,
        part=part_name,
    )


def _resolved(options: ExpandOptions, stack: Stack, growth: _Growth) -> Mapping[str, Any]:
    blocks, group = resolve(options, growth.found.depth)
    resolved: dict[str, Any] = {"mode": options.mode, "blocks": blocks, "stack": stack.name, "init": options.init}
    if options.mode == "insert":
        resolved["group"] = group
    if options.allow_inexact:
        resolved["allow_inexact"] = True
    return resolved


def _notes(anatomy: Anatomy, stack: Stack, options: ExpandOptions, growths: list[_Growth]) -> list[str]:
    notes = []
    if options.init == "copy":
        notes.append("init copy: the grown model does NOT compute the base's function")
    others = [other.name for other in anatomy.stacks if other.name != stack.name]
    if options.stack is None and others:
        notes.append(f"grows {stack.name}; also there, with --stack: {', '.join(others)}")
    if any(growth.order.index_map != tuple(range(growth.found.depth)) for growth in growths):
        also = f", and these speak of block numbers too: {'; '.join(stack.shifts)}" if stack.shifts else ""
        notes.append(f"blocks get new numbers: move LoRAs with grow remap-lora{also}")
    return notes
