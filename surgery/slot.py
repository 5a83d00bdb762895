"""A slot for a language model as it stands in a checkpoint: `llm_slot` in the config, and tensors in the blocks.

`llm_slot` is what `modelgrow.pipelines.grown` builds the slot from:

    blocks      stack -> numbers of its blocks that have one
    widths      stack -> width of its video stream
    outputs     stack -> where the video stands in what a block returns, where that is not first
    llm_dim     width of the language model's states
    heads, head_dim
    model, revision     which language model: a Hub id or a folder, and a commit
    layer, template, max_length     how the prompt is read
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .plan import Plan

KEY = "llm_slot"
MODULE = "llm_attn"
PROJECTOR = "llm_projector"
OUT = f"{MODULE}.to_out"
"""The module that is zero at first; so it is in a copy of a block, whatever the original has learned."""
_OUT = re.compile(rf"(.+)\.(0|[1-9][0-9]{{0,8}})\.{re.escape(OUT)}\.weight", re.DOTALL)


def slot_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The slot that a config speaks of, if it does."""
    found = config.get(KEY)
    return found if isinstance(found, dict) and found else None


def slot_blocks(names: Iterable[str]) -> dict[str, list[int]]:
    """Stack -> numbers of its blocks that have a slot, by the names of all tensors."""
    found: dict[str, list[int]] = {}
    for name in names:
        if match := _OUT.fullmatch(name):
            found.setdefault(match[1], []).append(int(match[2]))
    return {stack: sorted(numbers) for stack, numbers in sorted(found.items())}


def follow(plan: Plan, config: Mapping[str, Any]) -> Plan:
    """A plan that moves or copies blocks, with `llm_slot` telling of the blocks that have one then.

    Raises:
        CheckpointError: The slot is not one that `attach-llm` writes.
    """
    slot = slot_of(config)
    if slot is None:
        return plan
    outputs = slot.get("outputs", {})
    if not isinstance(outputs, dict):
        raise CheckpointError(f"config.json has {KEY}.outputs = {outputs!r:.80}, expected a number for each stack")
    shapes = {tensor.name: tensor.shape for tensor in plan.tensors}
    blocks = slot_blocks(shapes)
    widths = {stack: _width(shapes, f"{stack}.{numbers[0]}.{OUT}.weight") for stack, numbers in blocks.items()}
    outputs = {stack: output for stack, output in outputs.items() if stack in blocks}
    return replace(
        plan,
        config_edits={**plan.config_edits, KEY: {**slot, "blocks": blocks, "widths": widths, "outputs": outputs}},
    )


def _width(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    if not shapes[name]:
        raise CheckpointError(f"{name} is a single number, expected a matrix")
    return shapes[name][0]
