"""Random inputs for AnimateDiff: its UNet, and its motion modules alone. Shape letters: see the package."""

from __future__ import annotations

from typing import Any

import torch

from .recipe import B, Config, F, Inputs, L, Randn, Recipe, Runner

_ADDED = ("text_embeds", "time_ids")


def _unet_motion(config: Config, randn: Randn) -> Inputs:
    side = 2 ** (len(config["block_out_channels"]) - 1)
    width = config["cross_attention_dim"]
    inputs: Inputs = {
        "sample": randn(B, config["in_channels"], F, side, 2 * side),
        "timestep": torch.linspace(999.0, 1.0, B),
        "encoder_hidden_states": randn(B * F, L, width if isinstance(width, int) else width[0]),
    }
    if config["time_cond_proj_dim"] is not None:
        inputs["timestep_cond"] = randn(B, config["time_cond_proj_dim"])
    if config["addition_embed_type"] == "text_time":
        ids = 6  # original size, crop and target size, two numbers each
        inputs["text_embeds"] = randn(
            B, config["projection_class_embeddings_input_dim"] - ids * config["addition_time_embed_dim"]
        )
        inputs["time_ids"] = torch.tensor([[1024, 1024, 0, 0, 1024, 768]]).repeat(B, 1)
    return inputs


def _run_unet(model: Any, inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """`forward` takes what SDXL adds to the time embedding in a dictionary of its own."""
    added = {name: inputs[name] for name in _ADDED if name in inputs}
    others = {name: value for name, value in inputs.items() if name not in added}
    output: tuple[torch.Tensor, ...] = model(**others, added_cond_kwargs=added or None, return_dict=False)
    return output


def _motion_adapter(config: Config, randn: Randn) -> Inputs:
    """Frames of every width that the adapter has modules for."""
    return {f"states_{width}": randn(B * F, width, 3, 4) for width in dict.fromkeys(config["block_out_channels"])}


def _run_adapter(model: Any, inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """An adapter has no `forward`: each of its modules runs by itself, as it would inside a UNet."""
    outputs = []
    for name, module in model.named_modules():
        if name.rpartition(".")[0].endswith("motion_modules"):
            outputs.append(module(inputs[f"states_{module.in_channels}"], num_frames=F))
    return tuple(outputs)


RECIPES: dict[str, Recipe] = {"UNetMotionModel": _unet_motion, "MotionAdapter": _motion_adapter}
RUNNERS: dict[str, Runner] = {"UNetMotionModel": _run_unet, "MotionAdapter": _run_adapter}
