"""Random inputs for LTX-Video. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe


def _ltx(config: Config, randn: Randn) -> Inputs:
    height, width = 3, 4
    mask = torch.ones(B, L)
    mask[0, L // 2 :] = 0
    return {
        "hidden_states": randn(B, F * height * width, config["in_channels"]),
        "encoder_hidden_states": randn(B, L, config["caption_channels"]),
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_attention_mask": mask,
        "num_frames": F,
        "height": height,
        "width": width,
    }


RECIPES: dict[str, Recipe] = {"LTXVideoTransformer3DModel": _ltx}
