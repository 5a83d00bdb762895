"""Block numbers in the keys of a LoRA, moved to where growth put the blocks.

Four ways to write the same key are understood, with any suffix (lora_A.weight, lora_down.weight, alpha, lokr_w1):

    transformer.blocks.3.attn1.to_q              diffusers
    base_model.model.blocks.3.attn1.to_q         PEFT
    diffusion_model.double_blocks.3.img_attn     the model's original layout; an anatomy's lora_aliases says which stack
    lora_unet_blocks_3_attn1_to_q                kohya and musubi-tuner
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import CheckpointError

if TYPE_CHECKING:
    from .anatomy import Anatomy
    from .record import Record
    from .step import Step

_COMPONENTS = ("transformer_2", "transformer", "unet")
_HEADS = (*_COMPONENTS, "base_model.model", "diffusion_model", "model", "module", "net", "dit")
_OTHERS = ("text_encoder", "image_encoder", "vae", "connectors", "te", "te1", "te2", "te3")
_KOHYA = (*(f"lora_{head}_" for head in (*_COMPONENTS, "diffusion_model", "dit")), "lycoris_", "lora_")


@dataclass(frozen=True, kw_only=True)
class LoraTarget:
    """A grown model, as far as LoRAs care."""

    record: Record
    anatomy: Anatomy | None = None


def remap_keys(keys: Iterable[str], record: Record, anatomy: Anatomy | None = None) -> dict[str, str]:
    """Every key -> what it must be called to reach the same block of the grown model.

    Args:
        keys: Of a LoRA that was trained on the record's base.
        record: What the model has been through.
        anatomy: Its architecture, for the original layout's names.

    Raises:
        CheckpointError: A key names a block that the base does not have, or can't be understood.
    """
    grown = LoraTarget(record=record, anatomy=anatomy)
    return {key: move(key, grown) for key in keys}


def remap_for(keys: Iterable[str], models: Mapping[str, LoraTarget]) -> dict[str, str]:
    """`remap_keys` for a pipeline: keys that name a component follow that one's growth.

    Args:
        keys: Of a LoRA.
        models: The components that have grown, by name; "" for a model by itself.

    Raises:
        CheckpointError: As `remap_keys`, or a key names no component and the components have grown differently.
    """
    return {key: _move_for(key, models) for key in keys}


def _move_for(key: str, models: Mapping[str, LoraTarget]) -> str:
    component = component_of(key)
    if component is not None and component in models:
        return move(key, models[component])
    if component is not None and "" not in models:
        return key
    found = {move(key, grown) for grown in models.values()}
    if len(found) > 1:
        raise CheckpointError(
            f"{key!r} does not say which of {', '.join(models)} it is for, and they have grown differently; "
            "say --component"
        )
    return next(iter(found))


def component_of(key: str) -> str | None:
    """The pipeline's component that a key names, if any."""
    # Not kohya's heads: it says lora_unet_ of any model, and lora_transformer_ may be the beginning of a stack's name.
    return next((name for name in _COMPONENTS if key.startswith(f"{name}.")), None)


def move(key: str, grown: LoraTarget) -> str:
    """One key after all steps of a growth. Raises `CheckpointError`."""
    for step in grown.record.steps:
        key = _move_once(key, step, grown)
    return key


def _move_once(key: str, step: Step, grown: LoraTarget) -> str:
    paths = _paths(step, grown.anatomy)
    is_kohya = key.startswith(_KOHYA) and not key.startswith("lora_te")
    for head in _kohya_heads(key) if is_kohya else _dotted_heads(key):
        for path, places in paths.items():
            found = _match(key, head, path.replace(".", "_") if is_kohya else path, "_" if is_kohya else ".")
            if found is None:
                continue
            start, stop = found
            number = int(key[start:stop])
            if number >= len(places):
                raise CheckpointError(
                    f"{key!r}: names block {number}, and {path} of {grown.record.base.name} has {len(places)}; "
                    "the LoRA was trained on another model"
                )
            return f"{key[:start]}{places[number]}{key[stop:]}"
    if not is_kohya:
        _check_head(key, paths)
    return key


def _paths(step: Step, anatomy: Anatomy | None) -> dict[str, tuple[int, ...]]:
    """The stacks that a step renumbered, and their other names; the longest first."""
    paths = dict(step.index_map)
    for alias, name in anatomy.lora_aliases.items() if anatomy else ():
        place = anatomy.stack(name).place if anatomy else name
        if place in step.index_map:
            paths.setdefault(alias, step.index_map[place])
    return dict(sorted(paths.items(), key=lambda item: -len(item[0])))


def _match(key: str, head: int, path: str, separator: str) -> tuple[int, int] | None:
    """Where the block's number stands, if the stack's path begins at `head`."""
    if not key.startswith(path + separator, head):
        return None
    match = re.compile(rf"([0-9]{{1,9}})(?={re.escape(separator)}|\.|$)", re.ASCII).match(key, head + len(path) + 1)
    return match.span(1) if match else None


def _dotted_heads(key: str) -> list[int]:
    """Where the model's own names may begin: at the start, and after every head that is known."""
    starts, position = [0], 0
    while True:
        head = next((head for head in _HEADS if key.startswith(head + ".", position)), None)
        if head is None:
            return starts
        position += len(head) + 1
        starts.append(position)


def _kohya_heads(key: str) -> list[int]:
    return [len(head) for head in _KOHYA if key.startswith(head)]


def _check_head(key: str, paths: Mapping[str, tuple[int, ...]]) -> None:
    """What stands before a stack's name must be known, or blocks could stay where they are in silence."""
    first = key.partition(".")[0]
    if len(_dotted_heads(key)) > 1 or first.startswith(_OTHERS):
        return
    for path in paths:
        if re.search(rf"\.{re.escape(path)}\.[0-9]+(\.|$)", key):
            raise CheckpointError(
                f"{key!r}: {first!r} before {path!r} is unknown, so it is not clear whether its blocks must move; "
                f"known are {', '.join(_HEADS)}"
            )
