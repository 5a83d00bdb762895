"""Cosmos Transfer 2.5; what Cosmos2_5_TransferPipeline does before and around its ControlNet and its transformer.

A ControlNet reads a control clip (edges, depth, segments or a blurred clip: one, the one it was made for) beside the
noisy latents, and what it makes of them is added to the video behind the first of every n blocks of the transformer. It
is no part of what trains, and nothing that trains stands before it: it runs in every step, but no gradient goes through
it, and it keeps nothing for a backward pass. Control latents are the posterior's mean, where the pipeline draws them.

Noise levels and how many latent frames are given are those of NVIDIA's own trainer (cosmos-transfer2.5, the experiment
that its post-training starts from). That trainer tells the model a given frame has the level of the others; here it is
told what the pipeline tells it, when it goes on from one chunk to the next.

Shape letters: B samples, C channels, T frames, F latent frames, H, W in pixels, h, w in latents.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers.utils import is_torchvision_available

from modelgrow.surgery import TrainError

from ..objectives import GivenFrames
from . import cosmos
from .cosmos import encode_text, encode_video
from .family import Control

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text

__all__ = [
    "CALLED",
    "controls",
    "encode_conditions",
    "encode_text",
    "encode_video",
    "idle",
    "objective",
    "predict",
]

CALLED = ("controlnet",)
CONTROL = "control_video"
LATENTS = "kept_control_latents"
"""(B, C, F, h, w), normalised; the pipeline's guidance has them on both of its sides."""
SHARES = (0.4, 0.4, 0.2)
"""Of the samples of which 0, 1 and 2 latent frames are given."""
LEVEL = 0.1
"""The share of noise that the pipeline says given frames have."""
UNREAD = ("q_img", "k_img", "q_img_norm", "k_img_norm")
"""Of attention to a picture, of which this pipeline has none: its tokens are all alike, so it is all one to it how it
weighs them."""


def objective(pipeline: Any, settings: Settings) -> Objective:
    """As published. Raises `TrainError` if the model can't be trained, or can't run here."""
    _check(pipeline)
    found = cosmos.objective(pipeline, settings)
    if not isinstance(found, GivenFrames):
        raise TrainError(
            "Cosmos Transfer's transformer reads a mask of given frames, one channel more than it makes; this one "
            f"reads {pipeline.transformer.config.in_channels} and makes {pipeline.transformer.config.out_channels}"
        )
    return replace(found, shares=SHARES, level=LEVEL)


def idle(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a parameter has no part in the answer: what reads a picture, of which there are only zeros."""
    parts = name.split(".")
    return name == "img_context_proj.0.weight" or any(part in UNREAD for part in parts)


def controls(pipeline: Any) -> Mapping[str, Control]:
    """One clip, of the kind that the pipeline's ControlNet was made for."""
    return {CONTROL: Control(required=True)}


def encode_conditions(
    pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None], controls: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What the ControlNet reads of the control clips."""
    return {LATENTS: encode_video(pipeline, controls[CONTROL])}


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """`timesteps`: (B, 2, F), see `GivenFrames`."""
    told, mask = cosmos.told(pipeline, noisy, timesteps)
    height, width = (side * pipeline.vae_scale_factor_spatial for side in noisy.shape[-2:])
    both = {
        "timestep": told,
        "encoder_hidden_states": _states(pipeline, noisy, text["states"]),
        "condition_mask": mask,
        "padding_mask": noisy.new_zeros(1, 1, height, width),
        "return_dict": False,
    }
    with torch.no_grad():
        residuals = pipeline.controlnet(controls_latents=text[LATENTS].to(noisy.dtype), latents=noisy, **both)[0]
    output: torch.Tensor = model(hidden_states=noisy, block_controlnet_hidden_states=residuals, **both)[0]
    return output


def _states(
    pipeline: Any, noisy: torch.Tensor, states: torch.Tensor
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """The caption's, and zeros in the place of a picture's where the model has a place for them."""
    config = pipeline.transformer.config
    if not config.img_context_dim_in:
        return states
    return states, noisy.new_zeros(len(noisy), config.img_context_num_tokens, config.img_context_dim_in)


def _check(pipeline: Any) -> None:
    if not is_torchvision_available():
        raise TrainError(
            "diffusers resizes the ControlNet's padding mask with torchvision, which is missing: install it"
        )
    config, blocks = pipeline.transformer.config, pipeline.controlnet.config.n_controlnet_blocks
    every = config.controlnet_block_every_n
    if not every:
        raise TrainError(
            "the transformer's config.json has no controlnet_block_every_n, so its ControlNet has no place"
        )
    places = math.ceil(config.num_layers / every)
    if places != blocks:
        raise TrainError(
            f"the ControlNet has {blocks} blocks (n_controlnet_blocks), and the transformer {places} places for them "
            f"(num_layers {config.num_layers}, controlnet_block_every_n {every}); take the two that belong together"
        )
