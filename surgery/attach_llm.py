"""A slot for a language model: a second cross-attention behind a block, silent until it is trained.

ModelGrow (arXiv 2412.18966) adds one to every block, beside the one for T5. What a slot is made of, and how it
runs, is `modelgrow.pipelines.grown.slot`; here its tensors and its config are written.

Shape letters: C width of a block's video stream, D width of the language model's states, W width of the slots.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .drawn import DRAWABLE
from .errors import CheckpointError, PlanError
from .grown import grown_name
from .growths import find_partner
from .index import CLASS_NAME, follow_slots
from .plan import Plan, PlannedTensor
from .slot import KEY, slot_of
from .slot_tensors import in_parts, projector, slot
from .stacks import find_stacks, group_by_prefix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .anatomy import Anatomy, Stack
    from .checkpoint import Checkpoint
    from .language_model import LanguageModel

TEMPLATES = ("modelgrow", "plain", "hunyuan-video", "chat")
"""What `modelgrow.pipelines.text` can put around a prompt."""
_LAYER = re.compile(r"last|mean|-[1-9][0-9]{0,3}", re.ASCII)
_MAX_HEAD_DIM = 128


@dataclass(frozen=True, kw_only=True)
class AttachOptions:
    """How a slot is made."""

    llm: LanguageModel
    every: int = 1
    """Blocks 0, K, 2K ... of every place get one."""
    at: tuple[int, ...] | None = None
    """Just these blocks."""
    stack: str | None = None
    """The first stack of the architecture that can have one if None."""
    heads: int | None = None
    """As many as the base's if None."""
    width: int | None = None
    """Of queries, keys and values, all heads together; the blocks' own if None."""
    layer: str = "mean"
    template: str = TEMPLATES[0]
    max_length: int = 256
    """Tokens."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class _Place:
    """One stack that gets slots."""

    prefix: str
    numbers: tuple[int, ...]
    width: int
    output: int


def plan_attach_llm(
    checkpoint: Checkpoint, anatomy: Anatomy, options: AttachOptions, *, pipeline: Mapping[str, Any] | None = None
) -> Plan:
    """Plan a slot.

    Args:
        checkpoint: The model.
        anatomy: Of its stock class.
        options: See there.
        pipeline: model_index.json of the pipeline that it is a component of.

    Raises:
        PlanError: It has one already, none can stand there, or the numbers do not fit.
        AnatomyError: There is no such stack.
        CheckpointError: Config and tensors do not agree.
    """
    if slot_of(checkpoint.config) is not None:
        raise PlanError(
            f"{checkpoint.path}: has a slot for a language model already. 'grow shrink' takes the last growth back"
        )
    _check_reading(options)
    stack = _stack(anatomy, options.stack)
    places = _places(checkpoint, anatomy, stack, options)
    width, heads = _size(checkpoint, places, options)
    dtype = _dtype(checkpoint)
    carried = [PlannedTensor.copy_of(tensor, name) for name, tensor in checkpoint.tensors.items()]
    slots = [
        tensor
        for place in places
        for number in place.numbers
        for tensor in slot(f"{place.prefix}.{number}", place.width, width, dtype, options.seed)
    ]
    new = tuple(in_parts([*projector(options.llm.dim, width, dtype, options.seed), *slots]))
    grown = grown_name(anatomy.runs_as or anatomy.class_name)
    return Plan(
        operation="attach-llm",
        options=_resolved(options, places, stack, width, heads),
        class_name=str(checkpoint.class_name),
        tensors=(*carried, *new),
        config_edits={
            **({} if checkpoint.class_name == grown else {CLASS_NAME: grown}),
            KEY: _config(options, places, width, heads),
        },
        pipeline_edits=follow_slots(pipeline, {}, slotted=True),
        notes=(_cost(checkpoint, new), *_notes(anatomy, stack, options, grown)),
    )


def _check_reading(options: AttachOptions) -> None:
    if not _LAYER.fullmatch(options.layer):
        raise PlanError(f"--layer {options.layer!r:.60}: choose last, mean, or -2, -3 ... counted from the last")
    depth = options.llm.depth
    if depth is not None and options.layer.startswith("-") and int(options.layer[1:]) > depth:
        raise PlanError(
            f"--layer {options.layer}: {options.llm.name} has {depth} layers; choose last, mean, or -2 to -{depth}"
        )
    if options.template not in TEMPLATES:
        raise PlanError(f"--template {options.template!r:.60}: choose from {', '.join(TEMPLATES)}")
    if options.max_length < 1:
        raise PlanError(f"--max-length {options.max_length}: expected 1 or more")


def _stack(anatomy: Anatomy, name: str | None) -> Stack:
    able = [stack for stack in anatomy.stacks if stack.slot is not None]
    if not able:
        raise PlanError(f"{anatomy.class_name}: no slot can stand in it. Text: {anatomy.text}")
    if name is None:
        return able[0]
    stack = anatomy.stack(name)
    if stack.slot is None:
        raise PlanError(
            f"{anatomy.class_name}: no slot can stand in {name}, whose blocks do not make the video; choose from "
            f"{', '.join(stack.name for stack in able)}"
        )
    return stack


def _places(checkpoint: Checkpoint, anatomy: Anatomy, stack: Stack, options: AttachOptions) -> tuple[_Place, ...]:
    where = stack.slot
    found = find_stacks(checkpoint, anatomy, stack)
    if where is not None and where.path is not None:
        only = group_by_prefix(checkpoint.tensors, where.path)
        found = tuple(place for place in found if place.prefix in only)
    found += tuple(find_partner(checkpoint, partner.name) for partner in stack.partners if partner.slot)
    if where is None or not found:
        raise PlanError(f"{checkpoint.path}: stack {stack.name!r} has no blocks, so there is no place for a slot")
    places = []
    for place in found:
        numbers = _numbers(options, place.depth, f"{checkpoint.path}: {place.prefix}")
        widths = {_rows(checkpoint, place.blocks[number], where.width, place.prefix) for number in numbers}
        if len(widths) != 1:
            raise CheckpointError(f"{checkpoint.path}: the blocks of {place.prefix} are of several widths: {widths}")
        places.append(_Place(prefix=place.prefix, numbers=numbers, width=widths.pop(), output=where.output))
    return tuple(places)


def _numbers(options: AttachOptions, depth: int, where: str) -> tuple[int, ...]:
    if options.at is None:
        if options.every < 1:
            raise PlanError(f"--every {options.every}: expected 1 or more")
        return tuple(range(0, depth, options.every))
    numbers = tuple(sorted(set(options.at)))
    if not numbers or numbers[0] < 0 or numbers[-1] >= depth:
        asked = ",".join(map(str, options.at))
        raise PlanError(f"{where} has blocks 0 to {depth - 1}, --at asks for {asked or 'none'}")
    return numbers


def _rows(checkpoint: Checkpoint, block: Mapping[str, str], module: str, prefix: str) -> int:
    name = block.get(f"{module}.weight")
    if name is None or not checkpoint.tensors[name].shape:
        raise CheckpointError(f"{checkpoint.path}: {module}.weight is missing from a block of {prefix}")
    return checkpoint.tensors[name].shape[0]


def _size(checkpoint: Checkpoint, places: tuple[_Place, ...], options: AttachOptions) -> tuple[int, int]:
    """Width of the slots, and their heads."""
    widths = sorted(place.width for place in places)
    width = options.width or widths[len(widths) // 2]
    heads = options.heads or _heads(checkpoint, width)
    if width < 1 or heads < 1 or width % heads:
        raise PlanError(f"--heads {heads} does not divide --width {width}: each head takes an equal part of it")
    return width, heads


def _heads(checkpoint: Checkpoint, width: int) -> int:
    """The base's own number, where it fits; else as few as have at most 128 values each."""
    heads = checkpoint.config.get("num_attention_heads", checkpoint.config.get("num_heads"))
    if type(heads) is int and heads > 0 and width % heads == 0 and width // heads <= _MAX_HEAD_DIM:
        return heads
    return next(n for n in range(-(-width // _MAX_HEAD_DIM), width + 1) if width % n == 0)


def _dtype(checkpoint: Checkpoint) -> str:
    """What most of the model is made of; weights in 8 bits leave the slot in bfloat16."""
    return next((dtype for dtype in checkpoint.dtypes if dtype in DRAWABLE), "BF16")


def _config(options: AttachOptions, places: tuple[_Place, ...], width: int, heads: int) -> dict[str, Any]:
    return {
        "blocks": {place.prefix: list(place.numbers) for place in places},
        "widths": {place.prefix: place.width for place in places},
        "outputs": {place.prefix: place.output for place in places if place.output},
        "llm_dim": options.llm.dim,
        "heads": heads,
        "head_dim": width // heads,
        "model": options.llm.name,
        "revision": options.llm.revision,
        "layer": options.layer,
        "template": options.template,
        "max_length": options.max_length,
    }


def _resolved(
    options: AttachOptions, places: tuple[_Place, ...], stack: Stack, width: int, heads: int
) -> dict[str, Any]:
    resolved: dict[str, Any] = {"llm": options.llm.name, "stack": stack.name}
    resolved |= {"every": options.every} if options.at is None else {"at": list(options.at)}
    slots = sum(len(place.numbers) for place in places)
    return resolved | {"slots": slots, "width": width, "heads": heads, "seed": options.seed}


def _cost(checkpoint: Checkpoint, new: tuple[PlannedTensor, ...]) -> str:
    count = sum(tensor.num_elements for tensor in new)
    share = count / max(1, checkpoint.num_parameters)
    return f"{count:,} new parameters, {share:.0%} of what is there; --every and --width make that less"


def _notes(anatomy: Anatomy, stack: Stack, options: AttachOptions, grown: str) -> tuple[str, ...]:
    notes = [f"it becomes a {grown}, which diffusers finds after 'import modelgrow.pipelines'"]
    others = [other.name for other in anatomy.stacks if other.slot is not None and other.name != stack.name]
    if options.stack is None and others:
        notes.append(f"slots stand in {stack.name}; possible also, with --stack: {', '.join(others)}")
    return tuple(notes)
