"""Random inputs for Stable Diffusion 3. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, Inputs, L, Randn, Recipe


def _sd3(config: Config, randn: Randn) -> Inputs:
    patch = config["patch_size"]
    return {
        "hidden_states": randn(B, config["in_channels"], 3 * patch, 4 * patch),
        "encoder_hidden_states": randn(B, L, config["joint_attention_dim"]),
        "pooled_projections": randn(B, config["pooled_projection_dim"]),
        "timestep": torch.linspace(999.0, 1.0, B),
    }


RECIPES: dict[str, Recipe] = {"SD3Transformer2DModel": _sd3}
