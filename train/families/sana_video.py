"""Sana-Video, text to video; what SanaVideoPipeline does before and around its transformer."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .family import Text


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    # The instruction stands before every prompt unless the caller takes it away.
    instruction = inspect.signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
    states, mask, _, _ = pipeline.encode_prompt(
        captions, do_classifier_free_guidance=False, complex_human_instruction=instruction
    )
    return {"states": states, "mask": mask}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    vae = pipeline.vae
    latents: torch.Tensor = vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float()
    if vae.config.get("latents_mean") is None or vae.config.get("latents_std") is None:
        return latents
    mean, std = (
        torch.tensor(value, device=latents.device).view(1, -1, 1, 1, 1)
        for value in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (latents - mean) / std


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    output: torch.Tensor = model(
        noisy,
        encoder_hidden_states=text["states"],
        encoder_attention_mask=text["mask"],
        timestep=timesteps,
        return_dict=False,
    )[0]
    return output[:, : noisy.shape[1]]
