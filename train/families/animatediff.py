"""AnimateDiff, text to video; what AnimateDiffPipeline and AnimateDiffSDXLPipeline do before and around their UNet.

Shape letters: B samples, C channels, F frames, h, w height and width in latents, L tokens, D width of their states, E
width of a pooled prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .frames import encode_frames

if TYPE_CHECKING:
    from .family import Text

STATES, POOLED = "states", "pooled"
"""What attention reads; and, for SDXL, what goes to the time embedding with the picture's size."""


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, L, D); for SDXL `pooled` (B, E) too."""
    device = pipeline._execution_device
    if not hasattr(pipeline, "text_encoder_2"):
        states, _ = pipeline.encode_prompt(captions, device, 1, do_classifier_free_guidance=False)
        return {STATES: states}
    states, _, pooled, _ = pipeline.encode_prompt(captions, device=device, do_classifier_free_guidance=False)
    text = {STATES: states, POOLED: pooled}
    if pipeline.config.force_zeros_for_empty_prompt:  # SDXL is guided away from zeros, not from the empty prompt
        said = torch.tensor([bool(caption) for caption in captions], device=device)
        text = {name: state * said.view(-1, *(1,) * (state.ndim - 1)) for name, state in text.items()}
    return text


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return encode_frames(pipeline.vae, pixels)


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    states = text[STATES].repeat_interleave(noisy.shape[2], dim=0)  # every frame reads the prompt
    added = None
    if POOLED in text:
        added = {"text_embeds": text[POOLED], "time_ids": sizes(pipeline, noisy, states.dtype)}
    output: torch.Tensor = model(
        noisy, timesteps, encoder_hidden_states=states, added_cond_kwargs=added, return_dict=False
    )[0]
    return output


def sizes(pipeline: Any, noisy: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(B, 6): height and width of the original, top and left of the crop, height and width of the clip.

    Clips are told as uncropped and of the size that they have here, which is what the pipeline asks for by default.
    """
    height, width = (side * pipeline.vae_scale_factor for side in noisy.shape[-2:])
    told = torch.tensor([height, width, 0, 0, height, width], dtype=dtype, device=noisy.device)
    return told.expand(len(noisy), -1)
