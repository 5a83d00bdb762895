"""Random inputs for CogVideoX. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, Inputs, L, Randn, Recipe


def _cogvideox(config: Config, randn: Randn) -> Inputs:
    patch, patch_t = config["patch_size"], config["patch_size_t"] or 1
    learned = config["use_learned_positional_embeddings"]
    frames = patch_t * 2
    height = config["sample_height"] if learned else patch * 3  # a learned table fits one size only
    width = config["sample_width"] if learned else patch * 4
    length = config["max_text_seq_length"] if not config["use_rotary_positional_embeddings"] or learned else L
    inputs: Inputs = {
        "hidden_states": randn(B, frames, config["in_channels"], height, width),
        "encoder_hidden_states": randn(B, length, config["text_embed_dim"]),
        "timestep": torch.linspace(999.0, 1.0, B),
    }
    if config["use_rotary_positional_embeddings"]:
        angles = randn(frames // patch_t * (height // patch) * (width // patch), config["attention_head_dim"])
        inputs["image_rotary_emb"] = (angles.cos(), angles.sin())
    if config.get("ofs_embed_dim"):
        inputs["ofs"] = torch.full((1,), 2.0)
    return inputs


RECIPES: dict[str, Recipe] = {"CogVideoXTransformer3DModel": _cogvideox}
