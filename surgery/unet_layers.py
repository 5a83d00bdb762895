"""Depth of a UNet: more layers in every down and up block, where its skips allow it.

A down block hands the output of each of its layers to an up block, which takes them last first. So a new
layer belongs in two places at once: at the end of the down block, where it repeats the last output, and at
position 1 of the up block. There, position 0 takes the repeated skip, which equals the one it used to take,
and the new layer takes the one that is left over and does not look at it.

A new layer is a copy whose second convolutions and attention output are zero. Where it has a shortcut, because
it reads the skip beside the stream, the shortcut is [I | 0]: the stream as it is, nothing of the skip. And its
`mix_factor` is zero, because 0.5x + 0.5x is x to the bit and a blend with another weight need not be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .assemble import carried, copies
from .content import Values, Zeros
from .errors import CheckpointError, PlanError
from .expand_notes import of_init, of_other_stacks
from .growths import Growth
from .identity import identity_beside_zeros
from .order import INITS, Order
from .plan import Plan
from .stacks import FoundStack, group_by_prefix, ranges

if TYPE_CHECKING:
    from .anatomy import Anatomy, Stack
    from .checkpoint import Checkpoint
    from .order import ExpandOptions
    from .plan import PlannedTensor

_SIDES = ("down_blocks", "up_blocks")
_SILENT = {
    "resnets": ("spatial_res_block.conv2", "temporal_res_block.conv2"),
    "attentions": ("proj_out",),
}
_SHORTCUT = "spatial_res_block.conv_shortcut"
_MIX = "time_mixer.mix_factor"


@dataclass(frozen=True, kw_only=True)
class _LayerGroup:
    """The resnets, or the attentions, of one block."""

    prefix: str
    kind: str
    is_up: bool
    layers: tuple[dict[str, str], ...]


def plan_unet_layers(checkpoint: Checkpoint, anatomy: Anatomy, stack: Stack, options: ExpandOptions) -> Plan:
    """Plan `options.blocks` more layers (1 unless said) in each down and each up block of a spatio-temporal UNet.

    Raises:
        PlanError: Another mode than insert, or blocks of one layer, of which there is nothing to copy.
        CheckpointError: Config and tensors do not agree.
    """
    key = stack.count_keys[0]
    blocks = _resolve(options, stack, anatomy)
    value = anatomy.value(checkpoint.config, key)
    parts = _find(checkpoint, key, value)
    _check_copies_fit(checkpoint, anatomy, key, value)
    silent = options.init == "zero"
    growths = [
        Growth(
            found=FoundStack(prefix=part.prefix, blocks=part.layers),
            order=_order(part, blocks),
            zero=_SILENT[part.kind] if silent else (),
        )
        for part in parts
    ]
    tensors, rebuilt = carried(checkpoint, growths)
    new = [tensor for growth in growths for tensor in copies(checkpoint, growth)]
    return Plan(
        operation="expand",
        options={"mode": "insert", "blocks": blocks, "stack": stack.name, "init": options.init},
        class_name=checkpoint.class_name or anatomy.class_name,
        tensors=(*tensors, *(_pass_stream(new) if silent else new)),
        config_edits={key: [count + blocks for count in value] if _is_list(value) else value + blocks},
        index_map={growth.prefix: growth.order.index_map for growth in growths},
        copied_from={growth.prefix: growth.order.copied_from for growth in growths},
        rebuilt=rebuilt,
        notes=_notes(anatomy, stack, options),
    )


def _resolve(options: ExpandOptions, stack: Stack, anatomy: Anatomy) -> int:
    what = f"{anatomy.class_name}, {stack.name}, --mode {options.mode}"
    if options.mode != "insert":
        raise PlanError(
            f"{what}: not possible: down and up blocks exchange the outputs of their layers, so a new layer has "
            "one place in each (the end of a down block, position 1 of an up block); only --mode insert does that"
        )
    if options.group is not None:
        raise PlanError(f"{what}: --group {options.group} has no meaning here: every block gets --blocks layers")
    if options.init not in INITS:
        raise PlanError(f"unknown init {options.init!r}; choose from {', '.join(INITS)}")
    if options.blocks is not None and options.blocks < 1:
        raise PlanError(f"--blocks is {options.blocks}; at least 1 layer must be new in each block")
    return options.blocks or 1


def _find(checkpoint: Checkpoint, key: str, value: Any) -> list[_LayerGroup]:
    """Down blocks, then up blocks; resnets, then attentions where there are any."""
    found = {
        (side, kind): group_by_prefix(checkpoint.tensors, f"{side}.*.{kind}") for side in _SIDES for kind in _SILENT
    }
    counts = list(value) if _is_list(value) else [value] * len(found["down_blocks", "resnets"])
    if not counts or not all(type(count) is int and count > 0 for count in counts):
        raise CheckpointError(f"{checkpoint.path}: config.json has {key} = {value!r:.80}, expected numbers of layers")
    parts = []
    for side in _SIDES:
        resnets, is_up = found[side, "resnets"], side == "up_blocks"
        if set(resnets) != {f"{side}.{i}.resnets" for i in range(len(counts))}:
            raise CheckpointError(
                f"{checkpoint.path}: {key} = {value!r:.80} and the down blocks make {len(counts)} blocks; "
                f"the tensors of {side} hold {', '.join(resnets) or 'none'}"
            )
        # Up blocks go backwards and have one layer more, for the skip of what comes before a down block's layers.
        expected = [count + 1 for count in reversed(counts)] if is_up else counts
        for i, count in enumerate(expected):
            for kind in _SILENT:
                prefix = f"{side}.{i}.{kind}"
                if prefix in found[side, kind]:
                    layers = _layers(checkpoint, prefix, found[side, kind][prefix], kind, count)
                    parts.append(_LayerGroup(prefix=prefix, kind=kind, is_up=is_up, layers=layers))
    return parts


def _layers(
    checkpoint: Checkpoint, prefix: str, found: dict[int, dict[str, str]], kind: str, count: int
) -> tuple[dict[str, str], ...]:
    if sorted(found) != list(range(count)):
        raise CheckpointError(
            f"{checkpoint.path}: config.json makes {count} layers in {prefix}, the tensors hold {ranges(sorted(found))}"
        )
    for number in range(count):
        for module in _SILENT[kind]:
            if f"{module}.weight" not in found[number]:
                raise CheckpointError(f"{checkpoint.path}: {prefix}.{number}.{module}.weight is not in the file")
    return tuple(found[number] for number in range(count))


def _check_copies_fit(checkpoint: Checkpoint, anatomy: Anatomy, key: str, value: Any) -> None:
    if min(value if _is_list(value) else [value]) < 2:
        raise PlanError(
            f"{checkpoint.path}: {key} = {value!r:.80}: in a block of one layer that layer also changes the width, "
            "so no copy of it fits behind it; every block must have at least 2"
        )
    depths = anatomy.value(checkpoint.config, "transformer_layers_per_block")
    if _is_list(depths) and any(_is_list(depth) for depth in depths):
        raise PlanError(
            f"{checkpoint.path}: transformer_layers_per_block = {depths!r:.80} names every layer by itself, for down "
            "and up blocks at once, and a new layer stands at another place in each; write one number per block"
        )


def _order(part: _LayerGroup, blocks: int) -> Order:
    count = len(part.layers)
    if part.is_up:
        return Order(
            sources=(0, *(1,) * blocks, *range(1, count)), is_new=(False, *(True,) * blocks, *(False,) * (count - 1))
        )
    return Order(sources=(*range(count), *(count - 1,) * blocks), is_new=(*(False,) * count, *(True,) * blocks))


def _pass_stream(new: list[PlannedTensor]) -> list[PlannedTensor]:
    """The new layers with shortcuts and mixers that hand the stream on unchanged."""
    identities: dict[tuple[str, tuple[int, ...]], Values] = {}
    tensors = []
    for tensor in new:
        content = tensor.content
        if tensor.name.endswith(f"{_SHORTCUT}.weight"):
            key = (tensor.dtype, tensor.shape)
            if key not in identities:
                identities[key] = Values(data=identity_beside_zeros(tensor.dtype, tensor.shape, where=tensor.name))
            content = identities[key]
        elif tensor.name.endswith(f"{_SHORTCUT}.bias") or (".resnets." in tensor.name and tensor.name.endswith(_MIX)):
            content = Zeros()
        tensors.append(replace(tensor, content=content))
    return tensors


def _notes(anatomy: Anatomy, stack: Stack, options: ExpandOptions) -> tuple[str, ...]:
    notes = [*of_other_stacks(anatomy, stack, options), *of_init(options)]
    notes.append("layers of up blocks get new numbers: move LoRAs with grow remap-lora")
    if options.init != "copy":
        notes.append("on a GPU in float32, TF32 convolutions round the stream in the new layers' shortcuts")
    return tuple(notes)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
