"""CogVideoX 2B, 5B and 1.5, text to video; what CogVideoXPipeline does before and around its transformer.

1.5 joins two latent frames into one token, and its pipeline drops what it made too many at the beginning. As in its
published training, those are copies of the first.

Shape letters: B samples, L tokens, D width of their states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .latents import mean_of, scaled

if TYPE_CHECKING:
    from .family import Text

OFS = 2.0
"""What the pipeline tells 1.5 from a picture, always."""


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, L, D), of the length that the model is made for."""
    length = pipeline.transformer.config.max_text_seq_length
    states, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False, max_sequence_length=length)
    return {"states": states}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Scaled; for 1.5 with copies of the first latent frame before it, to a number that its tokens join."""
    latents = scaled(pipeline.vae, mean_of(pipeline.vae, pixels))
    joined = pipeline.transformer.config.patch_size_t or 1
    missing = -latents.shape[2] % joined
    return torch.cat([*[latents[:, :, :1]] * missing, latents], dim=2)


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    told = pipeline.transformer.config.ofs_embed_dim is not None
    output: torch.Tensor = model(
        hidden_states=noisy.transpose(1, 2),
        encoder_hidden_states=text["states"],
        timestep=timesteps,
        ofs=noisy.new_full((1,), OFS) if told else None,
        image_rotary_emb=_rotary(pipeline, noisy),
        return_dict=False,
    )[0]
    return output.transpose(1, 2)


def _rotary(pipeline: Any, noisy: torch.Tensor) -> Any:
    if not pipeline.transformer.config.use_rotary_positional_embeddings:
        return None
    frames, height, width = noisy.shape[2:]
    scale = pipeline.vae_scale_factor_spatial
    return pipeline._prepare_rotary_positional_embeddings(height * scale, width * scale, frames, noisy.device)
