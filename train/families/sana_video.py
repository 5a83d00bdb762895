"""Sana-Video, text and image to video; what SanaVideoPipeline and SanaImageToVideoPipeline do around their transformer.

A given first latent frame is not noisy, its tokens are at timestep 0, and its answer is not used, see
`first_frame_flow`. The VAE is causal, so the clip's first latent frame is that of the picture by itself.

Shape letters: B samples, F latent frames, L tokens, D width of their states.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from ..objectives.first_frame_flow import first_frame_flow, of_tokens
from .latents import mean_of, normalised
from .text import states_and_mask

if TYPE_CHECKING:
    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text


def objective(pipeline: Any, settings: Settings) -> Objective:
    return first_frame_flow(pipeline, settings)


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, L, D) and `mask` (B, L)."""
    # The instruction stands before every prompt unless the caller takes it away.
    instruction = inspect.signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
    return states_and_mask(pipeline, captions, complex_human_instruction=instruction)


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return normalised(pipeline.vae, mean_of(pipeline.vae, pixels))


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """`timesteps`: (B, F), or (B,) where no frame is given."""
    _, patch_height, patch_width = pipeline.transformer.config.patch_size
    tokens = (noisy.shape[3] // patch_height) * (noisy.shape[4] // patch_width)
    output: torch.Tensor = model(
        noisy,
        encoder_hidden_states=text["states"],
        encoder_attention_mask=text["mask"],
        timestep=of_tokens(timesteps, tokens),
        return_dict=False,
    )[0]
    return output[:, : noisy.shape[1]]
