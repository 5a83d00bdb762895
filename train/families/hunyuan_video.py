"""HunyuanVideo, text to video; what HunyuanVideoPipeline does before and around its transformer.

Shape letters: B samples, L tokens, D width of their states, E width of a pooled prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .latents import mean_of, scaled

if TYPE_CHECKING:
    import torch

    from .family import Text

GUIDANCE = 6.0
"""The pipeline's own guidance_scale, which the distilled model is told, times 1000."""


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """Llama's `states` (B, L, D) and their `mask` (B, L); CLIP's, `pooled`, (B, E)."""
    states, pooled, mask = pipeline.encode_prompt(captions)
    return {"states": states, "pooled": pooled, "mask": mask}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return scaled(pipeline.vae, mean_of(pipeline.vae, pixels))


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    output: torch.Tensor = model(
        hidden_states=noisy,
        timestep=timesteps,
        encoder_hidden_states=text["states"],
        encoder_attention_mask=text["mask"],
        pooled_projections=text["pooled"],
        guidance=noisy.new_full((len(noisy),), GUIDANCE * 1000),
        return_dict=False,
    )[0]
    return output
