"""Wan 2.1 and 2.2, text to video; what WanPipeline does before and around its transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

if TYPE_CHECKING:
    from .family import Text

MAX_TOKENS = 512
"""What WanPipeline pads its prompts to."""


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    tokens = pipeline.tokenizer(
        [prompt_clean(caption) for caption in captions], max_length=MAX_TOKENS, truncation=True
    ).input_ids
    # The pipeline cuts pads off and puts zeros in their place, so none need go through the encoder.
    longest = max(map(len, tokens))
    states, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False, max_sequence_length=longest)
    padded: torch.Tensor = torch.nn.functional.pad(states, (0, 0, 0, MAX_TOKENS - longest))
    return {"states": padded}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    vae = pipeline.vae
    latents = vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float()
    mean, std = (
        torch.tensor(value, device=latents.device).view(1, -1, 1, 1, 1)
        for value in (vae.config.latents_mean, vae.config.latents_std)
    )
    normalised: torch.Tensor = (latents - mean) / std
    return normalised


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    output: torch.Tensor = model(
        hidden_states=noisy, timestep=timesteps, encoder_hidden_states=text["states"], return_dict=False
    )[0]
    return output
