"""PixArt-alpha and -sigma, text to image; what their pipelines do before and around their transformer.

The half of the output that is a variance is left out, as the pipelines leave it out.

Shape letters: B samples, L tokens, D width of their states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .frames import encode_frames, picture_of
from .text import states_and_mask

if TYPE_CHECKING:
    import torch

    from .family import Text


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, L, D) and `mask` (B, L)."""
    return states_and_mask(pipeline, captions)


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return encode_frames(pipeline.vae, pixels)


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    picture = picture_of(noisy)
    output: torch.Tensor = model(
        picture,
        encoder_hidden_states=text["states"],
        encoder_attention_mask=text["mask"],
        timestep=timesteps,
        added_cond_kwargs=_size(pipeline, picture),
        return_dict=False,
    )[0]
    return output[:, : picture.shape[1], None]


def _size(pipeline: Any, picture: torch.Tensor) -> dict[str, torch.Tensor | None]:
    """What the 1024-pixel alpha model is told of the picture's size."""
    if pipeline.transformer.config.sample_size != 128 or not pipeline.transformer.use_additional_conditions:
        return {"resolution": None, "aspect_ratio": None}
    batch, _, height, width = picture.shape
    sides = picture.new_tensor([height, width]) * pipeline.vae_scale_factor
    return {
        "resolution": sides.repeat(batch, 1),
        "aspect_ratio": picture.new_tensor([height / width]).repeat(batch, 1),
    }
