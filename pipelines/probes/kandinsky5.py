"""Random inputs for Kandinsky 5.0. Shape letters: see the package."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe, Runner


def _kandinsky5(config: Config, randn: Randn) -> Inputs:
    frames, height, width = (n * p for n, p in zip((F, 3, 4), config["patch_size"], strict=True))
    # Latents, the same of the condition, and a mask that says where there is one.
    channels = 2 * config["in_visual_dim"] + 1 if config["visual_cond"] else config["in_visual_dim"]
    return {
        "hidden_states": randn(B, frames, height, width, channels),
        "encoder_hidden_states": randn(B, L, config["in_text_dim"]),
        "timestep": torch.linspace(999.0, 1.0, B),
        "pooled_projections": randn(B, config["in_text_dim2"]),
        "visual_rope_pos": tuple(torch.arange(size) for size in (F, 3, 4)),
        "text_rope_pos": torch.arange(L),
        "scale_factor": (1.0, 2.0, 2.0),
    }


def _run(model: Any, inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """Without a dict this class returns the tensor itself, not a tuple.

    Its norms of queries and keys run in float32 with weights of the model's dtype, and torch says once that there is
    no fused kernel for that.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight", category=UserWarning)
        return (model(**inputs, return_dict=False),)


RECIPES: dict[str, Recipe] = {"Kandinsky5Transformer3DModel": _kandinsky5}
RUNNERS: dict[str, Runner] = {"Kandinsky5Transformer3DModel": _run}
