"""Stable Diffusion 3 and 3.5, text to image; what StableDiffusion3Pipeline does before and around its transformer.

Shape letters: B samples, L tokens, D width of their states, E width of a pooled prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .frames import encode_frames, picture_of

if TYPE_CHECKING:
    import torch

    from .family import Text


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """CLIP's and T5's `states` (B, L, D); CLIP's, `pooled`, (B, E)."""
    states, _, pooled, _ = pipeline.encode_prompt(captions, None, None, do_classifier_free_guidance=False)
    return {"states": states, "pooled": pooled}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return encode_frames(pipeline.vae, pixels)


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    output: torch.Tensor = model(
        hidden_states=picture_of(noisy),
        timestep=timesteps,
        encoder_hidden_states=text["states"],
        pooled_projections=text["pooled"],
        return_dict=False,
    )[0]
    return output[:, :, None]
