"""Wan 2.1 VACE; what WanVACEPipeline does before and around its transformer with a prompt, or a prompt and a picture.

The control stream reads a clip in two parts, what is kept of it and what is to be made, and a mask of the latter. Where
the pipeline is given no clip, both are gray and all is to be made; a first frame is kept by a clip that is gray behind
it. So clips train it that have nothing beside them: in `first_frame` of the samples their first frame is given, by
default in none. Control clips (poses, depth, edges) and reference pictures are no part of the data here; the weights
that read them stay as they are where only what is new trains.

Shape letters: B samples, C channels, T frames, F latent frames, H, W in pixels, h, w in latents, S pixels a side of a
latent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import interpolate

from modelgrow.surgery import TrainError

from ..objectives import RectifiedFlow
from ..objectives.told_flow import ToldFlow
from . import wan
from .wan import encode_text, encode_video

if TYPE_CHECKING:
    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text

__all__ = ["encode_conditions", "encode_text", "encode_video", "objective", "predict"]

FIRST, GRAY = "kept_first_latents", "kept_gray_latents"
"""(B, C, F, h, w) normalised: of the first frame with gray behind it, and of gray alone."""


def objective(pipeline: Any, settings: Settings) -> Objective:
    flow = wan.objective(pipeline, settings)
    if not settings.first_frame:
        return flow
    if not isinstance(flow, RectifiedFlow):
        raise TrainError(f"{type(pipeline.scheduler).__name__}: a given first frame needs rectified flow")
    return ToldFlow(flow=flow, share=settings.first_frame)


def encode_conditions(pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None]) -> dict[str, torch.Tensor]:
    """What the model reads of the clips themselves: `pixels` (B, 3, T, H, W) in [-1, 1], their rates unused."""
    first, gray = pixels.clone(), torch.zeros_like(pixels[:1])
    first[:, :, 1:] = 0
    alike = encode_video(pipeline, gray).repeat(len(pixels), 1, 1, 1, 1)
    return {FIRST: encode_video(pipeline, first), GRAY: alike}


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """`timesteps`: (B,), or (B, 2) with 1 where the first frame is given, see `ToldFlow`."""
    given = timesteps.new_zeros(len(noisy))
    if timesteps.ndim == 2:
        timesteps, given = timesteps.unbind(1)
    chosen = given.bool().view(-1, 1, 1, 1, 1)
    gray = text[GRAY].to(noisy.dtype)
    kept = torch.where(chosen, text[FIRST].to(noisy.dtype), gray)
    made = torch.where(chosen, _mask(pipeline, noisy), noisy.new_ones(()))
    output: torch.Tensor = model(
        hidden_states=noisy,
        timestep=timesteps,
        encoder_hidden_states=text["states"],
        control_hidden_states=torch.cat([kept, gray, made], dim=1),
        return_dict=False,
    )[0]
    return output


def _mask(pipeline: Any, noisy: torch.Tensor) -> torch.Tensor:
    """(B, S S, F, h, w): 1 where a latent is to be made after a given first frame, by one of the frames in each.

    Which one is the pipeline's choice: where four frames are joined it is the second, so nothing counts as given.
    """
    batch, _, latent_frames, *sides = noisy.shape
    frames = (latent_frames - 1) * pipeline.vae_scale_factor_temporal + 1
    made = noisy.new_ones(1, 1, frames)
    made[..., 0] = 0
    latents = interpolate(made, size=latent_frames, mode="nearest-exact").view(1, 1, -1, 1, 1)
    return latents.expand(batch, pipeline.vae_scale_factor_spatial**2, -1, *sides)
