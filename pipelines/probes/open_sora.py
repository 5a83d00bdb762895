"""Random inputs for Open-Sora 1.0 and 1.2: prompts of two lengths, and given frames beside noisy ones.

Shape letters: see the package.
"""

from __future__ import annotations

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe


def _stdit3(config: Config, randn: Randn) -> Inputs:
    _, height, width = config["patch_size"]
    # An odd width, so that patches are padded.
    latents = randn(B, config["in_channels"], F, 3 * height, 4 * width - 1)
    return {
        **_inputs(config, randn, latents),
        "fps": torch.full((B,), 24.0),
        "height": torch.full((B,), 24.0 * height),
        "width": torch.full((B,), 32.0 * width),
    }


def _stdit(config: Config, randn: Randn) -> Inputs:
    return _inputs(config, randn, randn(B, config["in_channels"], *config["input_size"]))


def _inputs(config: Config, randn: Randn, latents: torch.Tensor) -> Inputs:
    mask = torch.ones(B, L, dtype=torch.long)
    mask[0, L // 2 :] = 0
    frames = -(-latents.shape[2] // config["patch_size"][0])
    given = torch.ones(B, frames, dtype=torch.bool)
    given[-1, 0] = False
    return {
        "hidden_states": latents,
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_hidden_states": randn(B, L, config["caption_channels"]),
        "encoder_attention_mask": mask,
        "frame_mask": given,
    }


RECIPES: dict[str, Recipe] = {"STDiT3Transformer3DModel": _stdit3, "STDiTTransformer3DModel": _stdit}
