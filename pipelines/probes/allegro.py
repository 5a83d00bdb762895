"""Random inputs for Allegro. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe


def _allegro(config: Config, randn: Randn) -> Inputs:
    patch, grid = config["patch_size"], (F, 3, 4)
    mask = torch.ones(B, L)
    mask[0, L // 2 :] = 0
    # RoPE, as the class takes it: cos and sin of every position along each axis, and each token's position there.
    angles = [randn(size, config["attention_head_dim"] // 3) for size in grid]
    positions = torch.cartesian_prod(*(torch.arange(size) for size in grid)).T[:, None]
    return {
        "hidden_states": randn(B, config["in_channels"], config["patch_size_t"] * F, patch * 3, patch * 4),
        "encoder_hidden_states": randn(B, L, config["caption_channels"]),
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_attention_mask": mask,
        "image_rotary_emb": (tuple((angle.cos(), angle.sin()) for angle in angles), tuple(positions)),
    }


RECIPES: dict[str, Recipe] = {"AllegroTransformer3DModel": _allegro}
