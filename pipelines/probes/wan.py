"""Random inputs for Wan. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe

_TEXT = 512
"""Text tokens of models that also read an image: their attention takes the last 512 states for text, always."""


def _wan(config: Config, randn: Randn) -> Inputs:
    frames, height, width = (n * p for n, p in zip((F, 3, 4), config["patch_size"], strict=True))
    inputs: Inputs = {
        "hidden_states": randn(B, config["in_channels"], frames, height, width),
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_hidden_states": randn(B, L, config["text_dim"]),
    }
    if config.get("image_dim") is not None:
        inputs["encoder_hidden_states"] = randn(B, _TEXT, config["text_dim"])
        length = config.get("pos_embed_seq_len")
        # First-and-last-frame models read two images per sample and fold them into one sequence.
        shape = (B, 5) if length is None else (2 * B, length // 2)
        inputs["encoder_hidden_states_image"] = randn(*shape, config["image_dim"])
    return inputs


RECIPES: dict[str, Recipe] = {"WanTransformer3DModel": _wan}
