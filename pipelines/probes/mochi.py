"""Random inputs for Mochi. Shape letters: see the package."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe, Runner


def _mochi(config: Config, randn: Randn) -> Inputs:
    mask = torch.ones(B, L, dtype=torch.bool)
    mask[0, L // 2 :] = False
    return {
        "hidden_states": randn(B, config["in_channels"], F, config["patch_size"] * 3, config["patch_size"] * 4),
        "encoder_hidden_states": randn(B, L, config["text_embed_dim"]),
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_attention_mask": mask,
    }


def _run(model: Any, inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """On a CPU torch warns that it can't autocast to float32, which is what the tensors in question are already."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="In CPU autocast", category=UserWarning)
        return (model(**inputs, return_dict=False)[0],)


RECIPES: dict[str, Recipe] = {"MochiTransformer3DModel": _mochi}
RUNNERS: dict[str, Runner] = {"MochiTransformer3DModel": _run}
