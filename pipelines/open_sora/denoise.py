"""From noise to latents: one loop for both of Open-Sora's ways of sampling.

Shape letters: B clips, C channels, F latent frames, h, w height and width of the latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch

from .flow import FrameConditions, flow_step

if TYPE_CHECKING:
    from .text import TextStates

OnStep = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""Called with the step, its timestep and the latents; returns the latents to go on with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoiser:
    """A transformer with all that stays the same over the steps of a clip."""

    transformer: Any
    text: TextStates
    """Of the prompts and, with guidance, before them of what stands against them."""
    fps: float
    height: float
    """In pixels, as is `width`."""
    width: float
    guidance_scale: float = 7.0
    guided: bool = True
    """Whether `text` has both halves."""
    guidance_channels: int | None = None
    """How many of the first channels are guided; None is all that are denoised. Open-Sora 1.0 has 3 of its 4."""

    def predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, frame_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The model's answer under guidance: u + scale (c - u).

        Args:
            latents: (B, C, F, h, w).
            timestep: A number.
            frame_mask: (B, F) bool, True where a frame is denoised; None is everywhere.

        Returns:
            (B, C or 2C, F, h, w), float32. What is not guided, learned variances too, is the prompts' half.
        """
        halves = 2 if self.guided else 1
        count = halves * len(latents)
        numbers = {name: self._each(getattr(self, name), count, latents) for name in ("fps", "height", "width")}
        with self.transformer.cache_context("cond_uncond"):
            answer = self.transformer(
                hidden_states=latents.repeat(halves, 1, 1, 1, 1),
                timestep=timestep.to(latents.device, torch.float32).expand(count),
                encoder_hidden_states=self.text.states,
                encoder_attention_mask=self.text.mask,
                frame_mask=None if frame_mask is None else frame_mask.repeat(halves, 1),
                return_dict=False,
                **numbers,
            )[0].float()
        if not self.guided:
            return answer  # type: ignore[no-any-return]
        opposed, prompted = answer.chunk(2)
        channels = self.guidance_channels or latents.shape[1]
        guided = opposed[:, :channels] + self.guidance_scale * (prompted[:, :channels] - opposed[:, :channels])
        return torch.cat([guided, prompted[:, channels:]], dim=1)

    @staticmethod
    def _each(value: float, count: int, like: torch.Tensor) -> torch.Tensor:
        return torch.full((count,), float(value), device=like.device)


def sample_flow(
    denoiser: Denoiser,
    scheduler: Any,
    latents: torch.Tensor,
    *,
    ratios: torch.Tensor | None = None,
    noise: Callable[[], torch.Tensor] | None = None,
    on_step: OnStep = lambda step, timestep, latents: latents,
) -> torch.Tensor:
    """Integrate Open-Sora 1.2's flow.

    Args:
        denoiser: The model.
        scheduler: After `set_flow_timesteps`.
        latents: Noise, and frames that are given, (B, C, F, h, w), float32.
        ratios: What part of each frame is made anew, (B, F), see `FrameConditions`; None makes all of them.
        noise: With `ratios`: gives noise of the latents' shape. Called in every step, needed or not, so that the
            draws do not depend on the ratios.
        on_step: See `OnStep`.
    """
    conditions = None if ratios is None else FrameConditions(ratios)
    channels = latents.shape[1]
    for step, timestep in enumerate(scheduler.timesteps):
        before, denoised = latents, None
        if conditions is not None and noise is not None:
            latents, denoised = conditions.begin_step(latents, noise(), timestep)
        velocity = denoiser.predict(latents, timestep, denoised)[:, :channels]
        latents = flow_step(scheduler, velocity, timestep, latents)
        if conditions is not None and denoised is not None:
            latents = conditions.end_step(latents, before, denoised)
        latents = on_step(step, timestep, latents)
    return latents


def sample_diffusion(
    denoiser: Denoiser,
    scheduler: Any,
    latents: torch.Tensor,
    *,
    generator: Any = None,
    on_step: OnStep = lambda step, timestep, latents: latents,
) -> torch.Tensor:
    """Open-Sora 1.0's denoising diffusion, which predicts noise, by any of diffusers' schedulers for that.

    Arguments as in `sample_flow`; `generator` is of the noise that ancestral samplers add.
    """
    # A config that was another scheduler's can still say so of one that learns none.
    knows = "variance_type" in signature(type(scheduler).__init__).parameters
    learned = knows and scheduler.config.variance_type in ("learned", "learned_range")
    extra = {"generator": generator} if "generator" in signature(scheduler.step).parameters else {}
    channels = latents.shape[1]
    for step, timestep in enumerate(scheduler.timesteps):
        answer = denoiser.predict(scheduler.scale_model_input(latents, timestep), timestep)
        answer = answer if learned else answer[:, :channels]
        latents = scheduler.step(answer, timestep, latents, return_dict=False, **extra)[0]
        latents = on_step(step, timestep, latents)
    return latents
