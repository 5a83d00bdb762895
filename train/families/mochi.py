"""Mochi 1, text to video; what MochiPipeline does before and around its transformer.

Its scheduler counts upwards (`invert_sigmas`): the model is told how much is signal, and answers with the
way from noise to data. The objective knows that, see `rectified_flow`.

Shape letters: B samples, L tokens, D width of their states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .latents import mean_of, scaled, statistics
from .text import states_and_mask

if TYPE_CHECKING:
    from .family import Text


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, L, D) and `mask` (B, L)."""
    return states_and_mask(pipeline, captions)


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    """(x - mean) f / std by channels, with the VAE's scaling factor f: what the pipeline undoes before it decodes."""
    vae = pipeline.vae
    latents = mean_of(vae, pixels)
    known = statistics(vae, latents)
    if known is None:
        return scaled(vae, latents)
    mean, std = known
    return scaled(vae, latents - mean) / std


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    output: torch.Tensor = model(
        hidden_states=noisy,
        encoder_hidden_states=text["states"],
        timestep=timesteps,
        encoder_attention_mask=text["mask"],
        return_dict=False,
    )[0]
    return output
