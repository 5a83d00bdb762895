"""CogVideoX 2B, 5B and 1.5, text to video; what CogVideoXPipeline does before and around its transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

if TYPE_CHECKING:
    from .family import Text


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    length = pipeline.transformer.config.max_text_seq_length
    states, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False, max_sequence_length=length)
    return {"states": states}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    vae = pipeline.vae
    latents: torch.Tensor = vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float()
    return latents * vae.config.scaling_factor


def predict(model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    output: torch.Tensor = model(
        hidden_states=noisy.transpose(1, 2),
        encoder_hidden_states=text["states"],
        timestep=timesteps,
        image_rotary_emb=rotary(model.config, noisy.shape, noisy.device),
        return_dict=False,
    )[0]
    return output.transpose(1, 2)


def rotary(config: Any, shape: torch.Size, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The pipeline's own table for latents of `shape` (B, C, F, h, w); None for models without RoPE."""
    if not config.use_rotary_positional_embeddings:
        return None
    frames, height, width = shape[2:]
    patch, patch_t = config.patch_size, config.patch_size_t
    grid, base = (height // patch, width // patch), (config.sample_height // patch, config.sample_width // patch)
    if patch_t is None:
        crops = get_resize_crop_region_for_grid(grid, base[1], base[0])
        cos, sin = get_3d_rotary_pos_embed(
            config.attention_head_dim, crops, grid_size=grid, temporal_size=frames, device=device
        )
    else:
        cos, sin = get_3d_rotary_pos_embed(
            config.attention_head_dim,
            None,
            grid_size=grid,
            temporal_size=(frames + patch_t - 1) // patch_t,
            grid_type="slice",
            max_size=base,
            device=device,
        )
    return cos, sin
