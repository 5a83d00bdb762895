"""Clips of which the first latent frames are given, so that a model learns to go on from a picture or a clip: Cosmos.

What denoises the others is another objective, the `flow`. The error of given frames does not count, as in Cosmos' own
trainers, which put the given frames in the place of the answer.

Shape letters: B samples, C channels, F latent frames, h, w height and width of the latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .edm import Edm
from .frame_masks import of_frames
from .objective import draw_levels
from .rectified_flow import RectifiedFlow

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class GivenFrames:
    """The objective for the loop. Levels are the flow's, of every latent frame, (B, F), float32; negative: given."""

    flow: Edm | RectifiedFlow
    shares: tuple[float, ...]
    """Of the samples of which the first 0, 1, 2 ... frames are given; never all of them."""
    level: float | None
    """What the model is told of given frames, which are without noise. None: they have noise, of a level of its own
    in each sample, whose ln has the next two as mean and deviation, and the model is not told."""
    mean: float = -3.0
    deviation: float = 2.0

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """For pictures, of which nothing is given: (B, 1)."""
        return self.flow.draw(batch, generator)[:, None]

    def draw_for(self, latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Of these latents, (B, C, F, h, w)."""
        frames, batch = latents.shape[2], len(latents)
        levels = draw_levels(self.flow, latents, generator)[:, None].expand(-1, frames)
        counts = torch.multinomial(torch.tensor(self.shares), batch, replacement=True, generator=generator)
        given = torch.arange(frames) < counts.clamp(max=frames - 1)[:, None]
        noise = (torch.randn(batch, 1, generator=generator) * self.deviation + self.mean).exp()
        return torch.where(given, -noise if self.level is None else -self.level, levels)

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        seen = self._by_frame(self.flow.noisy, latents, noise, levels)
        return seen if self.level is None else torch.where(of_frames(levels < 0), latents, seen)

    def timesteps(self, levels: torch.Tensor) -> torch.Tensor:
        """(B, 2, F): what the model is told of each frame, and 1 where it is given."""
        return torch.stack([self.flow.timesteps(levels.abs()), (levels < 0).to(levels.dtype)], dim=1)

    def target(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return self._by_frame(self.flow.target, latents, noise, levels)

    def weights(self, levels: torch.Tensor) -> torch.Tensor:
        """Of the squared error, (B, 1, F, 1, 1): 0 for given frames."""
        return of_frames((levels >= 0).float())

    @staticmethod
    def _by_frame(
        function: Callable[..., torch.Tensor], latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor
    ) -> torch.Tensor:
        """As if every frame were a sample."""
        apart = (value.transpose(1, 2).flatten(0, 1) for value in (latents, noise))
        found: torch.Tensor = function(*apart, levels.abs().flatten()).unflatten(0, levels.shape)
        return found.transpose(1, 2)
