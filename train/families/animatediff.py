"""AnimateDiff, text to video; what AnimateDiffPipeline does before and around its UNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .frames import encode_frames

if TYPE_CHECKING:
    import torch

    from .family import Text


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    states, _ = pipeline.encode_prompt(captions, pipeline._execution_device, 1, do_classifier_free_guidance=False)
    return {"states": states}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return encode_frames(pipeline.vae, pixels)


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    states = text["states"].repeat_interleave(noisy.shape[2], dim=0)  # every frame reads the prompt
    output: torch.Tensor = model(noisy, timesteps, encoder_hidden_states=states, return_dict=False)[0]
    return output
