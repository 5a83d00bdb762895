"""Flux.1, text to image; what FluxPipeline does before and around its transformer.

Shape letters: B samples, L tokens, D width of their states, E width of a pooled prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers import FluxPipeline

from .frames import encode_frames, picture_of

if TYPE_CHECKING:
    import torch

    from .family import Text

PACKED = 2
GUIDANCE = 3.5
"""The pipeline's own guidance_scale, which the distilled model is told."""


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """T5's `states` (B, L, D); CLIP's, `pooled`, (B, E)."""
    states, pooled, _ = pipeline.encode_prompt(captions, None)
    return {"states": states, "pooled": pooled}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return encode_frames(pipeline.vae, pixels)


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    picture, states = picture_of(noisy), text["states"]
    batch, channels, height, width = picture.shape
    ids = FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, noisy.device, states.dtype)
    output = model(
        hidden_states=FluxPipeline._pack_latents(picture, batch, channels, height, width),
        timestep=timesteps / 1000,
        guidance=noisy.new_full((batch,), GUIDANCE).float() if pipeline.transformer.config.guidance_embeds else None,
        pooled_projections=text["pooled"],
        encoder_hidden_states=states,
        txt_ids=states.new_zeros(states.shape[1], 3),
        img_ids=ids,
        return_dict=False,
    )[0]
    unpacked: torch.Tensor = FluxPipeline._unpack_latents(output, height, width, 1)
    return unpacked[:, :, None]
