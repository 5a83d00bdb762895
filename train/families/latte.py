"""Latte, text to video; what LattePipeline does before and around its transformer.

Pads are zeroed, as the pipeline does for several prompts at once; for one alone it cuts them off, but what
is cached has one length. The half of the output that is a variance is left out, as the pipeline leaves it
out: published samplings do not use it, and no loss here trains it.

Shape letters: B samples, L tokens, D width of their states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .frames import encode_frames

if TYPE_CHECKING:
    import torch

    from .family import Text


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, L, D)."""
    several = [*captions, ""]  # never one alone
    states, _ = pipeline.encode_prompt(several, do_classifier_free_guidance=False)
    return {"states": states[: len(captions)]}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return encode_frames(pipeline.vae, pixels)


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    output: torch.Tensor = model(
        hidden_states=noisy, timestep=timesteps, encoder_hidden_states=text["states"], return_dict=False
    )[0]
    return output[:, : noisy.shape[1]]
