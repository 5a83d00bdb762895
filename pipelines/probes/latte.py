"""Random inputs for Latte. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, Inputs, L, Randn, Recipe


def _latte(config: Config, randn: Randn) -> Inputs:
    frames = config["video_length"]  # the table of frame positions fits one length only
    return {
        "hidden_states": randn(B, config["in_channels"], frames, config["patch_size"] * 3, config["patch_size"] * 4),
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_hidden_states": randn(B, L, config["caption_channels"]),
    }


RECIPES: dict[str, Recipe] = {"LatteTransformer3DModel": _latte}
