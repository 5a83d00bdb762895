"""Wan 2.2 TI2V-5B, text to video and image to video in one; what WanPipeline and WanImageToVideoPipeline do around it.

Its folder says `expand_timesteps`: every token has a timestep of its own. A given first frame is not noisy, its tokens
are at timestep 0, and its answer is not used. How many samples have it is `first_frame`, see `first_frame_flow`. The
VAE is causal, so the clip's first latent frame is that of the picture by itself.

Shape letters: B samples, F latent frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..objectives.first_frame_flow import first_frame_flow, of_tokens
from .wan import encode_text, encode_video

if TYPE_CHECKING:
    import torch

    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text

__all__ = ["encode_text", "encode_video", "objective", "predict"]


def objective(pipeline: Any, settings: Settings) -> Objective:
    return first_frame_flow(pipeline, settings)


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """`timesteps`: (B, F), or (B,) where no frame is given.

    Those are not written out for every token, as the pipeline does: the answer is the same, and takes less memory.
    """
    _, patch_height, patch_width = pipeline.transformer.config.patch_size
    tokens = (noisy.shape[3] // patch_height) * (noisy.shape[4] // patch_width)
    output: torch.Tensor = model(
        hidden_states=noisy,
        timestep=of_tokens(timesteps, tokens),
        encoder_hidden_states=text["states"],
        return_dict=False,
    )[0]
    return output
