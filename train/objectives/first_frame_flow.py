"""Rectified flow with the first latent frame given: what Wan 2.2 TI2V-5B, LTX-Video and others learn from a picture.

A given frame is at level 0, that is the clip itself; the model is told so, and its answer there does not count, since
the pipelines of these models put the picture back at every step.

Shape letters: B samples, C channels, F latent frames, h, w height and width of the latents, N tokens of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery import TrainError

from . import scheduled
from .frame_masks import GIVEN, of_frames, weights_of
from .objective import draw_levels
from .rectified_flow import RectifiedFlow

if TYPE_CHECKING:
    from ..settings import Settings
    from .objective import Objective


@dataclass(frozen=True, kw_only=True)
class FirstFrameFlow:
    """The objective for the loop. Levels are the flow's, of every latent frame, (B, F), float32, or `GIVEN`."""

    flow: RectifiedFlow
    share: float = 1.0
    """Of the samples whose first frame is given."""

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """For pictures, of which nothing is given: (B, 1)."""
        return self.flow.draw(batch, generator)[:, None]

    def draw_for(self, latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Of these latents, (B, C, F, h, w). Of one frame, none is given: nothing would be left to learn."""
        levels = draw_levels(self.flow, latents, generator)[:, None].repeat(1, latents.shape[2])
        given = torch.rand(len(latents), generator=generator) < self.share
        if latents.shape[2] > 1:
            levels[given, 0] = GIVEN
        return levels

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        level = of_frames(levels.clamp(min=0))
        return (1 - level) * latents + level * noise

    def timesteps(self, levels: torch.Tensor) -> torch.Tensor:
        """(B, F)."""
        return self.flow.timesteps(levels.clamp(min=0))

    def target(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return self.flow.target(latents, noise, levels)

    def weights(self, levels: torch.Tensor) -> torch.Tensor:
        """Of the squared error, (B, 1, F, 1, 1): each sample's mean is that over the frames that are not given."""
        return weights_of(levels)


def first_frame_flow(pipeline: Any, settings: Settings) -> Objective:
    """A pipeline's rectified flow, in which as many first frames are given as `settings.first_frame` says.

    None is all of them for an image-to-video pipeline, and none for text to video. Raises `TrainError` for a scheduler
    of another kind.
    """
    flow = scheduled(pipeline, settings)
    share = settings.first_frame
    if share is None:
        share = float("ImageToVideo" in type(pipeline).__name__)
    if not share:
        return flow
    if not isinstance(flow, RectifiedFlow) or flow.inverted:
        raise TrainError(f"{type(pipeline.scheduler).__name__}: a given first frame needs rectified flow")
    return FirstFrameFlow(flow=flow, share=share)


def of_tokens(timesteps: torch.Tensor, tokens: int) -> torch.Tensor:
    """Timesteps of frames, (B, F), as those of their tokens, (B, F N); of samples, (B,), as they are."""
    return timesteps.repeat_interleave(tokens, dim=1) if timesteps.ndim == 2 else timesteps
