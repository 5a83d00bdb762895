"""Random inputs for Wan Animate. Shape letters: see the package."""

from __future__ import annotations

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe

_TEXT_LENGTH = 512
"""Fixed in the class: with image projections, all but the last 512 states are the image's."""


def _wan_animate(config: Config, randn: Randn) -> Inputs:
    patch_t, patch_h, patch_w = config["patch_size"]
    frames, height, width = F * patch_t, 3 * patch_h, 4 * patch_w
    pixels = config["motion_encoder_size"]
    channels = config["latent_channels"] or (config["in_channels"] - 4) // 2
    inputs: Inputs = {
        "hidden_states": randn(B, 2 * channels + 4, frames, height, width),
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_hidden_states": randn(B, _TEXT_LENGTH if config["added_kv_proj_dim"] else L, config["text_dim"]),
        # One latent frame is the reference; the face is read four times as often as the others.
        "pose_hidden_states": randn(B, channels, frames - 1, height, width),
        "face_pixel_values": randn(B, 3, 4 * (F - 2) + 1, pixels, pixels),
    }
    if config["image_dim"] is not None:
        length = config["pos_embed_seq_len"]
        shape = (B, 5) if length is None else (2 * B, length // 2)
        inputs["encoder_hidden_states_image"] = randn(*shape, config["image_dim"])
    return inputs


RECIPES: dict[str, Recipe] = {"WanAnimateTransformer3DModel": _wan_animate}
