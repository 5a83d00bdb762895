"""ExVideo's names in DiffSynth-Studio, where its weights were published, and the extended UNet's names here.

DiffSynth's SVDUNet (diffsynth/models/svd_unet.py of its version 1.1.9) keeps all of its layers in one list, in the
order in which they run, so that a block's number follows from everything before it: a resnet takes 4 places, an
attention 5 with its temporal block the fourth of them, and a down- or upsampler and every push or pop of a skip 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .errors import CheckpointError
from .exvideo import CONV_BIAS, CONV_WEIGHT, TABLE

_TABLE_KEY = re.compile(r"blocks\.([0-9]{1,5})\.positional_embedding\.embeddings", re.ASCII)
_RESNET, _ATTENTION, _TEMPORAL = 4, 5, 3
_LAYER = re.compile(r"(?:(down|up)_blocks\.([0-9]{1,5})|mid_block)\.(resnets|attentions)\.([0-9]{1,5})\.", re.ASCII)
_TEMPORAL_BLOCK = "temporal_transformer_blocks.0"
_PAIRS: dict[str, str] = {
    "positional_embedding_proj.0": "time_pos_embed.linear_1",
    "positional_embedding_proj.2": "time_pos_embed.linear_2",
    "norm_in": f"{_TEMPORAL_BLOCK}.norm_in",
    "act_fn_in.proj": f"{_TEMPORAL_BLOCK}.ff_in.net.0.proj",
    "ff_in": f"{_TEMPORAL_BLOCK}.ff_in.net.2",
    "norm1": f"{_TEMPORAL_BLOCK}.norm1",
    "norm2": f"{_TEMPORAL_BLOCK}.norm2",
    "norm_out": f"{_TEMPORAL_BLOCK}.norm3",
    "act_fn_out.proj": f"{_TEMPORAL_BLOCK}.ff.net.0.proj",
    "ff_out": f"{_TEMPORAL_BLOCK}.ff.net.2",
}
"""Modules with weight and bias: DiffSynth's -> diffusers'."""


def _names() -> dict[str, str]:
    """Every tensor of a temporal block: DiffSynth's name -> ours."""
    found = {
        "positional_embedding.embeddings": TABLE,
        "positional_conv.weight": CONV_WEIGHT,
        "positional_conv.bias": CONV_BIAS,
    }
    for theirs, ours in _PAIRS.items():
        found |= {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in ("weight", "bias")}
    for attention in ("attn1", "attn2"):
        ours = f"{_TEMPORAL_BLOCK}.{attention}"
        found |= {f"{attention}.to_{part}.weight": f"{ours}.to_{part}.weight" for part in "qkv"}
        found |= {f"{attention}.to_out.{kind}": f"{ours}.to_out.0.{kind}" for kind in ("weight", "bias")}
    return found


NAMES: Mapping[str, str] = _names()


def is_extension(keys: Iterable[str]) -> bool:
    """Whether these are the keys of an ExVideo extension in DiffSynth's names."""
    return any(_TABLE_KEY.fullmatch(key) for key in keys)


def block_numbers(tensors: Iterable[str], *, where: str) -> dict[int, str]:
    """DiffSynth's number of each temporal block -> the attention that it belongs to, by diffusers' name.

    Args:
        tensors: Names of a UNet of SVD's kind, of any depth.
        where: What it is called, for the message.

    Raises:
        CheckpointError: An attention has several temporal blocks, for which DiffSynth has no names.
    """
    names = tuple(tensors)
    several = next((name for name in names if ".temporal_transformer_blocks.1." in name), None)
    if several is not None:
        raise CheckpointError(f"{where}: {several!r}: DiffSynth's UNet has one temporal block in each attention")
    layers = _layers(names)
    downs, ups = (_count(layers, side) for side in ("down", "up"))
    found: dict[int, str] = {}
    place = 0
    for block in range(downs):
        for layer in range(layers[f"down_blocks.{block}", "resnets"]):
            place = _add(found, place, f"down_blocks.{block}", layer, layers) + 1
        place += 2 * (block < downs - 1)
    place = _add(found, place, "mid_block", 0, layers)
    place = _add(found, place, "mid_block", 1, layers)
    for block in range(ups):
        for layer in range(layers[f"up_blocks.{block}", "resnets"]):
            place = _add(found, place + 1, f"up_blocks.{block}", layer, layers)
        place += block < ups - 1
    return found


def _layers(names: Iterable[str]) -> dict[tuple[str, str], int]:
    """(block, "resnets" or "attentions") -> how many it has."""
    found: dict[tuple[str, str], int] = {}
    for name in names:
        match = _LAYER.match(name)
        if match is not None:
            block = f"{match[1]}_blocks.{match[2]}" if match[1] else "mid_block"
            key = block, match[3]
            found[key] = max(found.get(key, 0), int(match[4]) + 1)
    return found


def _count(layers: Mapping[tuple[str, str], int], side: str) -> int:
    return len({block for block, _ in layers if block.startswith(f"{side}_blocks.")})


def _add(found: dict[int, str], place: int, block: str, layer: int, layers: Mapping[tuple[str, str], int]) -> int:
    """One resnet and the attention behind it, if there is one; the place after them."""
    place += _RESNET
    if layer < layers.get((block, "attentions"), 0):
        found[place + _TEMPORAL] = f"{block}.attentions.{layer}"
        place += _ATTENTION
    return place


def our_names(keys: Iterable[str], tensors: Iterable[str], *, where: str, base: str) -> dict[str, str]:
    """DiffSynth's keys of an extension -> the extended UNet's names.

    Args:
        keys: Of the extension.
        tensors: Names of the UNet that it is for.
        where: The extension's file, for messages.
        base: What the UNet is called, for messages.

    Raises:
        CheckpointError: A key is of no temporal block of this UNet.
    """
    numbers = block_numbers(tensors, where=base)
    found = {}
    for key in keys:
        match = re.fullmatch(r"blocks\.([0-9]{1,5})\.(.+)", key, re.ASCII)
        if match is None or match[2] not in NAMES:
            raise CheckpointError(f"{where}: {key!r} is no tensor of ExVideo's temporal blocks")
        if int(match[1]) not in numbers:
            raise CheckpointError(
                f"{where}: {key!r}: {base} has its temporal blocks at {', '.join(map(str, numbers))}; the extension is "
                "of a UNet of another shape"
            )
        found[key] = f"{numbers[int(match[1])]}.{NAMES[match[2]]}"
    return found
