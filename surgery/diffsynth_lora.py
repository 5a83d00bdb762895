"""LoRAs that DiffSynth-Studio trained, such as ExVideo's for CogVideoX, under diffusers' names.

DiffSynth names layers as its own models have them, with nothing before them: `blocks.3.attn1.to_out.lora_A.default
.weight`. diffusers finds no layer of that name, says so in its log at most, and goes on without the LoRA. There is no
alpha: B A is added as it is, which is what diffusers does with an alpha that nobody gave.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .errors import CheckpointError

_KEY = re.compile(r"blocks\.(?P<block>[0-9]{1,9})\.(?P<layer>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight", re.ASCII)
_COGVIDEOX = {
    **{f"attn1.to_{part}": f"attn1.to_{part}" for part in "qkv"},
    "attn1.to_out": "attn1.to_out.0",
    "norm1.linear": "norm1.linear",
    "norm2.linear": "norm2.linear",
    "ff.0": "ff.net.0.proj",
    "ff.2": "ff.net.2",
}
_WAN = {
    **{
        f"{theirs}.{part}": f"{ours}.to_{part}"
        for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for part in "qkv"
    },
    "self_attn.o": "attn1.to_out.0",
    "cross_attn.o": "attn2.to_out.0",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}
LAYERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "CogVideoXTransformer3DModel": ("transformer_blocks", _COGVIDEOX),
    "WanTransformer3DModel": ("blocks", _WAN),
}
"""Per class: what diffusers calls the blocks, and DiffSynth's name of each linear layer of one -> diffusers'."""


def is_diffsynth_lora(keys: Iterable[str]) -> bool:
    """Whether all of these keys are written as DiffSynth writes a LoRA's, for any of the models that are known."""
    layers = {name for _, table in LAYERS.values() for name in table}
    found = [match["layer"] if (match := _KEY.fullmatch(key)) else "" for key in keys]
    return bool(found) and any(layer in layers for layer in found) and all(found)


def diffusers_names(keys: Iterable[str], classes: Mapping[str, str], *, where: str) -> dict[str, str]:
    """What a pipeline's own loader wants each key of a DiffSynth LoRA to be called.

    Args:
        keys: Of the LoRA.
        classes: The pipeline's components, or "" for a model by itself -> their classes.
        where: The LoRA's file, for messages.

    Raises:
        CheckpointError: No component is of a model whose names are known, or a key is of no layer of it.
    """
    known = {name: class_name for name, class_name in classes.items() if class_name in LAYERS}
    if not known:
        raise CheckpointError(
            f"{where}: a LoRA in DiffSynth's names, which are known for {', '.join(LAYERS)}; this is "
            f"{', '.join(classes.values()) or 'no model'}"
        )
    component = "transformer" if "transformer" in known else next(iter(known))
    stack, layers = LAYERS[known[component]]
    found = {}
    for key in keys:
        match = _KEY.fullmatch(key)
        if match is None or match["layer"] not in layers:
            raise CheckpointError(
                f"{where}: {key!r} is of no layer of {known[component]} as DiffSynth names them "
                f"(blocks.N.{', blocks.N.'.join(layers)}); the LoRA is of another model"
            )
        head = f"{component}.{stack}.{match['block']}" if component else f"{stack}.{match['block']}"
        found[key] = f"{head}.{layers[match['layer']]}.lora_{match['half']}.weight"
    return found
