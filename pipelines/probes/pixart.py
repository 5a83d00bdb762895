"""Random inputs for PixArt. Shape letters: see the package."""

from __future__ import annotations

from typing import Any

import torch

from .recipe import B, Config, Inputs, L, Randn, Recipe, Runner


def _pixart(config: Config, randn: Randn) -> Inputs:
    patch = config["patch_size"]
    mask = torch.ones(B, L)
    mask[0, L // 2 :] = 0
    inputs: Inputs = {
        "hidden_states": randn(B, config["in_channels"], 3 * patch, 4 * patch),
        "encoder_hidden_states": randn(B, L, config["caption_channels"] or config["cross_attention_dim"]),
        "encoder_attention_mask": mask,
        "timestep": torch.linspace(999.0, 1.0, B),
    }
    wanted = config["use_additional_conditions"]
    if wanted or (wanted is None and config["sample_size"] == 128):
        inputs["resolution"] = torch.tensor([[1024, 1024], [768, 1280]])
        inputs["aspect_ratio"] = torch.tensor([[1.0], [0.6]])
    return inputs


def _run(model: Any, inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """`forward` takes the picture's size in a dictionary of its own."""
    size = {name: inputs.get(name) for name in ("resolution", "aspect_ratio")}
    others = {name: value for name, value in inputs.items() if name not in size}
    output: tuple[torch.Tensor, ...] = model(**others, added_cond_kwargs=size, return_dict=False)
    return output


RECIPES: dict[str, Recipe] = {"PixArtTransformer2DModel": _pixart, "Transformer2DModel": _pixart}
RUNNERS: dict[str, Runner] = {"PixArtTransformer2DModel": _run}
