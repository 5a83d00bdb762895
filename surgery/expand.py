"""Depth: ModelGrow's expansion by block duplication (arXiv 2412.18966), for every declared architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .assemble import carried, copies
from .errors import PlanError
from .expand_notes import of_init, of_other_stacks
from .growths import plan_growths
from .order import resolve
from .plan import Plan
from .slot import follow

if TYPE_CHECKING:
    from .anatomy import Anatomy, Stack
    from .checkpoint import Checkpoint
    from .growths import Growth
    from .order import ExpandOptions


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

        return follow(plan_unet_layers(checkpoint, anatomy, stack, options), checkpoint.config)
    growths, edits = plan_growths(checkpoint, anatomy, stack, options)
    tensors, rebuilt = carried(checkpoint, growths)
    plan = Plan(
        operation="expand",
        options=_resolved(options, stack, growths[0]),
        class_name=checkpoint.class_name or anatomy.class_name,
        tensors=(*tensors, *(new for growth in growths for new in copies(checkpoint, growth))),
        config_edits=edits,
        index_map={growth.prefix: growth.order.index_map for growth in growths},
        copied_from={growth.prefix: growth.order.copied_from for growth in growths},
        rebuilt=rebuilt,
        notes=(*warnings, *_notes(anatomy, stack, options, growths)),
    )
    return follow(plan, checkpoint.config)


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


def _resolved(options: ExpandOptions, stack: Stack, growth: Growth) -> dict[str, Any]:
    blocks, group = resolve(options, growth.found.depth)
    resolved: dict[str, Any] = {"mode": options.mode, "blocks": blocks, "stack": stack.name, "init": options.init}
    if options.mode == "insert":
        resolved["group"] = group
    if options.allow_inexact:
        resolved["allow_inexact"] = True
    return resolved


def _notes(anatomy: Anatomy, stack: Stack, options: ExpandOptions, growths: list[Growth]) -> list[str]:
    notes = [*of_init(options), *of_other_stacks(anatomy, stack, options)]
    for stride in stack.strides:
        added = [growth for growth in growths if growth.prefix == stride.stack and any(growth.order.is_new)]
        if added:
            count = sum(added[0].order.is_new)
            notes.append(
                f"{stride.stack} gets {count} new blocks, so that {stride.key} comes out even; "
                "growths by a multiple of it need none"
            )
    if any(growth.order.index_map != tuple(range(growth.found.depth)) for growth in growths):
        also = f", and these speak of block numbers too: {'; '.join(stack.shifts)}" if stack.shifts else ""
        notes.append(f"blocks get new numbers: move LoRAs with grow remap-lora{also}")
    return notes
