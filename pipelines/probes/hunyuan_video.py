"""Random inputs for HunyuanVideo. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe


def _hunyuan_video(config: Config, randn: Randn) -> Inputs:
    frames, height, width = config["patch_size_t"] * F, config["patch_size"] * 3, config["patch_size"] * 4
    mask = torch.ones(B, L, dtype=torch.long)
    mask[0, L // 2 :] = 0
    inputs: Inputs = {
        "hidden_states": randn(B, config["in_channels"], frames, height, width),
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_hidden_states": randn(B, L, config["text_embed_dim"]),
        "encoder_attention_mask": mask,
        "pooled_projections": randn(B, config["pooled_projection_dim"]),
    }
    if config["guidance_embeds"]:
        inputs["guidance"] = torch.full((B,), 6000.0)
    return inputs


RECIPES: dict[str, Recipe] = {"HunyuanVideoTransformer3DModel": _hunyuan_video}
