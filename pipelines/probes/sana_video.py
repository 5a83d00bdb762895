"""Random inputs for SANA-Video. Shape letters: see the package."""

from __future__ import annotations

from typing import Any

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe, Runner


def _sana_video(config: Config, randn: Randn) -> Inputs:
    frames, height, width = (n * p for n, p in zip((F, 3, 4), config["patch_size"], strict=True))
    mask = torch.ones(B, L)
    mask[0, L // 2 :] = 0
    inputs: Inputs = {
        "hidden_states": randn(B, config["in_channels"], frames, height, width),
        "encoder_hidden_states": randn(B, L, config["caption_channels"]),
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_attention_mask": mask,
    }
    if config["guidance_embeds"]:
        inputs["guidance"] = torch.full((B,), 4.5)
    return inputs


def _run(model: Any, inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """Block 0 gets its tokens contiguous.

    The patch embedding hands them over transposed, and cross-attention, which has no norm before it, then takes a
    matrix kernel that rounds bfloat16 differently. Behind a new block 0 the same numbers come contiguous.
    """
    hook = model.transformer_blocks[0].register_forward_pre_hook(_contiguous)
    try:
        return (model(**inputs, return_dict=False)[0],)
    finally:
        hook.remove()


def _contiguous(block: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].contiguous(), *args[1:])


RECIPES: dict[str, Recipe] = {"SanaVideoTransformer3DModel": _sana_video}
RUNNERS: dict[str, Runner] = {"SanaVideoTransformer3DModel": _run}
