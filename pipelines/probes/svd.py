"""Random inputs for Stable Video Diffusion and ExVideo. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, F, Inputs, Randn, Recipe


def _svd(config: Config, randn: Randn) -> Inputs:
    side = 2 ** len(config["block_out_channels"])  # ExVideo's convolution needs 2x2 at the deepest level
    width = config["cross_attention_dim"]
    ids = config["projection_class_embeddings_input_dim"] // config["addition_time_embed_dim"]
    return {
        "sample": randn(B, F, config["in_channels"], side, 2 * side),
        "timestep": torch.linspace(1.0, -1.0, B),
        "encoder_hidden_states": randn(B, 1, width if isinstance(width, int) else width[0]),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]).repeat(B, 1)[:, :ids],
    }


RECIPES: dict[str, Recipe] = {
    "ExVideoUNetSpatioTemporalConditionModel": _svd,
    "UNetSpatioTemporalConditionModel": _svd,
}
