"""LTX-Video, text to video; what LTXPipeline does before and around its transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import LTXPipeline

if TYPE_CHECKING:
    from .family import Text

FRAME_RATE = 25
SPATIAL, TEMPORAL = 32, 8
"""The published VAE's compression, which the model's RoPE measures with."""


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


def predict(model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    frames, height, width = noisy.shape[2:]
    patch, patch_t = model.config.patch_size, model.config.patch_size_t
    output = model(
        hidden_states=LTXPipeline._pack_latents(noisy, patch, patch_t),
        encoder_hidden_states=text["states"],
        timestep=timesteps,
        encoder_attention_mask=text["mask"],
        num_frames=frames,
        height=height,
        width=width,
        rope_interpolation_scale=(TEMPORAL / FRAME_RATE, SPATIAL, SPATIAL),
        return_dict=False,
    )[0]
    unpacked: torch.Tensor = LTXPipeline._unpack_latents(output, frames, height, width, patch, patch_t)
    return unpacked
