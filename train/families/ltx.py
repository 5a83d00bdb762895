"""LTX-Video, text to video; what LTXPipeline does before and around its transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import LTXPipeline

if TYPE_CHECKING:
    from .family import Text

FRAME_RATE = 25
"""Of the clips; what the pipeline assumes too."""


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    states, mask, _, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False)
    return {"states": states, "mask": mask}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    vae = pipeline.vae
    latents = vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float()
    normalised: torch.Tensor = LTXPipeline._normalize_latents(
        latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor
    )
    return normalised


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    frames, height, width = noisy.shape[2:]
    patch, patch_t = pipeline.transformer_spatial_patch_size, pipeline.transformer_temporal_patch_size
    spatial = pipeline.vae_spatial_compression_ratio
    output = model(
        hidden_states=LTXPipeline._pack_latents(noisy, patch, patch_t),
        encoder_hidden_states=text["states"],
        timestep=timesteps,
        encoder_attention_mask=text["mask"],
        num_frames=frames,
        height=height,
        width=width,
        rope_interpolation_scale=(pipeline.vae_temporal_compression_ratio / FRAME_RATE, spatial, spatial),
        return_dict=False,
    )[0]
    unpacked: torch.Tensor = LTXPipeline._unpack_latents(output, frames, height, width, patch, patch_t)
    return unpacked
