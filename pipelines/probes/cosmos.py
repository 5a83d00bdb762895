"""Random inputs for Cosmos. Shape letters: see the package."""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.utils import is_torchvision_available

from modelgrow.surgery import VerifyError

from .recipe import B, Config, F, Inputs, L, Randn, Recipe, Runner

IMAGE_TOKENS = 5


def _cosmos(config: Config, randn: Randn) -> Inputs:
    frames, height, width = (n * p for n, p in zip((F, 3, 4), config["patch_size"], strict=True))
    projected = config.get("use_crossattn_projection")
    text_dim = config["crossattn_proj_in_channels"] if projected else config["text_embed_dim"]
    inputs: Inputs = {
        "hidden_states": randn(B, config["in_channels"], frames, height, width),
        "timestep": torch.linspace(0.9, 0.1, B),
        "encoder_hidden_states": randn(B, L, text_dim),
        "fps": 16,
    }
    if config["concat_padding_mask"]:
        if not is_torchvision_available():
            raise VerifyError("Cosmos with concat_padding_mask runs with torchvision only: pip install torchvision")
        inputs["padding_mask"] = randn(1, 1, height, width)
    if config.get("img_context_dim_in"):
        inputs["image_context"] = randn(B, IMAGE_TOKENS, config["img_context_dim_in"])
    else:
        mask = torch.ones(B, L, dtype=torch.bool)
        mask[0, L // 2 :] = False
        inputs["attention_mask"] = mask
    if config.get("controlnet_block_every_n"):
        shape = (B, F * 3 * 4, config["num_attention_heads"] * config["attention_head_dim"])
        count = math.ceil(config["num_layers"] / config["controlnet_block_every_n"])
        inputs["control"] = torch.stack([randn(*shape) for _ in range(count)])
    return inputs


def _run(model: Any, inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """Image states go in beside the text as a tuple, the residuals of a ControlNet as a list."""
    inputs = dict(inputs)
    image, control = inputs.pop("image_context", None), inputs.pop("control", None)
    if image is not None:
        inputs["encoder_hidden_states"] = (inputs["encoder_hidden_states"], image)
    if control is not None:
        inputs["block_controlnet_hidden_states"] = list(control)
    return (model(**inputs, return_dict=False)[0],)


RECIPES: dict[str, Recipe] = {"CosmosTransformer3DModel": _cosmos}
RUNNERS: dict[str, Runner] = {"CosmosTransformer3DModel": _run}
