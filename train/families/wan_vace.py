"""Wan 2.1 VACE; what WanVACEPipeline does before and around its transformer.

The control stream reads a clip in two parts, what is kept of it and what is to be made, and a mask of the latter. Where
the data have `control_video` (poses, depth, edges), that is the clip; and where they have `mask_video` too, what is
white in it is to be made, and the rest is kept. Without a mask all is to be made, and without control clips the stream
reads gray, as in the pipeline.

A first frame is kept by putting it in the place of the control clip's, black in the mask. It is given in `first_frame`
of the samples, by default in none; with gray behind it that trains image to video, with control clips beside them.
Reference pictures are no part of the data here; the weights that read them stay as they are where only what is new
trains.

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
from .family import Control
from .wan import encode_text, encode_video

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text

__all__ = ["controls", "encode_conditions", "encode_text", "encode_video", "objective", "predict"]

VIDEO, MASK = "control_video", "mask_video"
GRAY, FIRST = "kept_gray_latents", "kept_first_latents"
KEPT, MASKS = "kept_inactive_latents", "kept_mask_latents"
MADE, LATER = "kept_reactive_latents", "kept_later_latents"
"""(B, C, F, h, w) normalised. Kept of a clip: gray or, by a mask, `KEPT`; with a first frame, `FIRST`. To be made: gray
or, of a control clip, `MADE`; behind a first frame, `LATER`. `MASKS`: (B, S S, F, h, w), bytes, 255 is to be made."""


def objective(pipeline: Any, settings: Settings) -> Objective:
    """Wan's; where first frames are given, it is told of which samples. Raises `TrainError` if that is no flow."""
    flow = wan.objective(pipeline, settings)
    if not settings.first_frame:
        return flow
    if not isinstance(flow, RectifiedFlow):
        raise TrainError(f"{type(pipeline.scheduler).__name__}: a given first frame needs rectified flow")
    return ToldFlow(flow=flow, share=settings.first_frame)


def controls(pipeline: Any) -> Mapping[str, Control]:
    return {VIDEO: Control(required=False), MASK: Control(required=False)}


def encode_conditions(
    pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None], controls: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What the control stream reads of the clips and of their control clips.

    Raises:
        TrainError: There are masks and no control clips.
    """
    gray = torch.zeros_like(pixels[:1])
    kept, made = gray.expand_as(pixels), controls.get(VIDEO)
    conditions: dict[str, torch.Tensor] = {}
    if MASK in controls:
        if made is None:
            raise TrainError(
                f"the clips have {MASK} and no {VIDEO}, of which a mask keeps the black part; to have the clips' own "
                f"masked parts made anew, give copies of them that are gray where the mask is white as {VIDEO}"
            )
        mask = ((controls[MASK] + 1) / 2).clamp(0, 1)
        kept, made = torch.where(mask > 0.5, 0, made), torch.where(mask > 0.5, made, 0)
        masks = torch.cat([pipeline.prepare_masks(one, [[]]) for one in mask.split(1)])
        conditions |= {KEPT: encode_video(pipeline, kept), MASKS: (masks * 255).round().to(torch.uint8)}
    else:
        conditions |= {GRAY: encode_video(pipeline, gray).repeat(len(pixels), 1, 1, 1, 1)}
    if made is not None:
        conditions |= {MADE: encode_video(pipeline, made), LATER: encode_video(pipeline, _behind(gray, made))}
    return {**conditions, FIRST: encode_video(pipeline, _behind(pixels, kept))}


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """`timesteps`: (B,), or (B, 2) with 1 where the first frame is given, see `ToldFlow`."""
    given = timesteps.new_zeros(len(noisy))
    if timesteps.ndim == 2:
        timesteps, given = timesteps.unbind(1)
    chosen = given.bool().view(-1, 1, 1, 1, 1)
    kept, made, later = (text[name if name in text else GRAY].to(noisy.dtype) for name in (KEPT, MADE, LATER))
    mask = (text[MASKS].float() / 255).to(noisy.dtype) if MASKS in text else noisy.new_ones(())
    control = [
        torch.where(chosen, text[FIRST].to(noisy.dtype), kept),
        torch.where(chosen, later, made),
        torch.where(chosen, mask * _mask(pipeline, noisy), mask),
    ]
    output: torch.Tensor = model(
        hidden_states=noisy,
        timestep=timesteps,
        encoder_hidden_states=text["states"],
        control_hidden_states=torch.cat(control, dim=1),
        return_dict=False,
    )[0]
    return output


def _behind(first: torch.Tensor, clips: torch.Tensor) -> torch.Tensor:
    """(B, 3, T, H, W): the first frame of some clips, then others from their second frame on."""
    return torch.cat([first[:, :, :1].expand_as(clips[:, :, :1]), clips[:, :, 1:]], dim=2)


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
