"""Random inputs for HunyuanVideo 1.5. Shape letters: see the package."""

from __future__ import annotations

from typing import Any

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe, Runner

BYT5_TOKENS, IMAGE_TOKENS = 6, 5


def _hunyuan_video15(config: Config, randn: Randn) -> Inputs:
    frames, height, width = config["patch_size_t"] * F, config["patch_size"] * 3, config["patch_size"] * 4
    mask, byt5_mask = torch.ones(B, L, dtype=torch.long), torch.ones(B, BYT5_TOKENS, dtype=torch.long)
    mask[0, L // 2 :] = 0
    byt5_mask[1, BYT5_TOKENS // 2 :] = 0
    inputs: Inputs = {
        "hidden_states": randn(B, config["in_channels"], frames, height, width),
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_hidden_states": randn(B, L, config["text_embed_dim"]),
        "encoder_attention_mask": mask,
        "encoder_hidden_states_2": randn(B, BYT5_TOKENS, config["text_embed_2_dim"]),
        "encoder_attention_mask_2": byt5_mask,
        # An image that is all zeros is masked out, so a text-to-video model gets one that is not as well.
        "image_embeds": randn(B, IMAGE_TOKENS, config["image_embed_dim"]),
    }
    if config["use_meanflow"]:
        inputs["timestep_r"] = torch.linspace(500.0, 0.0, B)
    return inputs


def _run(model: Any, inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """The class embeds a timestep in the timestep's own dtype, so that must be the model's."""
    timestep = inputs["timestep"].to(inputs["hidden_states"].dtype)
    return (model(**{**inputs, "timestep": timestep}, return_dict=False)[0],)


RECIPES: dict[str, Recipe] = {"HunyuanVideo15Transformer3DModel": _hunyuan_video15}
RUNNERS: dict[str, Runner] = {"HunyuanVideo15Transformer3DModel": _run}
