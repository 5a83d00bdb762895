"""Random inputs for EasyAnimate. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe


def _easyanimate(config: Config, randn: Randn) -> Inputs:
    height, width = 3 * config["patch_size"], 4 * config["patch_size"]
    channels = config["out_channels"]
    inputs: Inputs = {
        "hidden_states": randn(B, channels, F, height, width),
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_hidden_states": randn(B, L, config["text_embed_dim"]),
    }
    extra = config["in_channels"] - channels
    if extra:
        # The inpainting and control models read what they are given beside the noisy latents.
        inputs["inpaint_latents"] = randn(B, extra, F, height, width)
    if config["text_embed_dim_t5"] is not None:
        inputs["encoder_hidden_states_t5"] = randn(B, L, config["text_embed_dim_t5"])
    return inputs


RECIPES: dict[str, Recipe] = {"EasyAnimateTransformer3DModel": _easyanimate}
