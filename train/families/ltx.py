"""LTX-Video, text and image to video; what LTXPipeline and LTXImageToVideoPipeline do around their transformer.

The model is one for both: a given first latent frame is not noisy, its tokens are at timestep 0, and its answer is not
used. How many samples have it is `first_frame`, see `first_frame_flow`. The VAE is causal, so the clip's first latent
frame is that of the picture by itself; it is the posterior's mean, where the pipeline draws from it.

Shape letters: B samples, F latent frames, L tokens, D width of their states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import LTXPipeline

from ..objectives.first_frame_flow import first_frame_flow, of_tokens
from .latents import mean_of
from .text import states_and_mask

if TYPE_CHECKING:
    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text

FRAME_RATE = 25
"""Of the clips; what the pipeline assumes too."""


def objective(pipeline: Any, settings: Settings) -> Objective:
    return first_frame_flow(pipeline, settings)


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, L, D) and `mask` (B, L)."""
    return states_and_mask(pipeline, captions)


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    """(x - mean) f / std by channels, with the VAE's scaling factor f: what the pipeline undoes before it decodes."""
    vae = pipeline.vae
    latents = mean_of(vae, pixels)
    normalised: torch.Tensor = LTXPipeline._normalize_latents(
        latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor
    )
    return normalised


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """`timesteps`: (B, F), or (B,) where no frame is given."""
    frames, height, width = noisy.shape[2:]
    patch, patch_t = pipeline.transformer_spatial_patch_size, pipeline.transformer_temporal_patch_size
    spatial = pipeline.vae_spatial_compression_ratio
    output = model(
        hidden_states=LTXPipeline._pack_latents(noisy, patch, patch_t),
        encoder_hidden_states=text["states"],
        timestep=of_tokens(timesteps, (height // patch) * (width // patch)),
        encoder_attention_mask=text["mask"],
        num_frames=frames,
        height=height,
        width=width,
        rope_interpolation_scale=(pipeline.vae_temporal_compression_ratio / FRAME_RATE, spatial, spatial),
        return_dict=False,
    )[0]
    unpacked: torch.Tensor = LTXPipeline._unpack_latents(output, frames, height, width, patch, patch_t)
    return unpacked
