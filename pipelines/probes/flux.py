"""Random inputs for FLUX.1, whose image comes as a sequence. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, Inputs, L, Randn, Recipe


def _flux(config: Config, randn: Randn) -> Inputs:
    rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
    positions = torch.stack((torch.zeros(12), rows.flatten(), columns.flatten()), dim=1)
    inputs: Inputs = {
        "hidden_states": randn(B, len(positions), config["in_channels"]),
        "encoder_hidden_states": randn(B, L, config["joint_attention_dim"]),
        "pooled_projections": randn(B, config["pooled_projection_dim"]),
        "timestep": torch.linspace(0.999, 0.001, B),
        "img_ids": positions,
        "txt_ids": torch.zeros(L, positions.shape[1]),
    }
    if config["guidance_embeds"]:
        inputs["guidance"] = torch.full((B,), 3.5)
    return inputs


RECIPES: dict[str, Recipe] = {"FluxTransformer2DModel": _flux}
