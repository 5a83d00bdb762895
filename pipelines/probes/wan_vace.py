"""Random inputs for Wan VACE. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe


def _wan_vace(config: Config, randn: Randn) -> Inputs:
    size = [n * p for n, p in zip((F, 3, 4), config["patch_size"], strict=True)]
    return {
        "hidden_states": randn(B, config["in_channels"], *size),
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_hidden_states": randn(B, L, config["text_dim"]),
        "control_hidden_states": randn(B, config["vace_in_channels"], *size),
        "control_hidden_states_scale": torch.linspace(1.0, 0.5, len(config["vace_layers"])),
    }


RECIPES: dict[str, Recipe] = {"WanVACETransformer3DModel": _wan_vace}
