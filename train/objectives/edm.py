"""EDM: with v prediction the objective of Stable Video Diffusion and ExVideo, as published that of Cosmos 1.

A sample at noise level s is x + s e with data x, of standard deviation d, and noise e (Karras et al., arXiv
2206.00364). The model sees (x + s e) / sqrt(s^2 + d^2), is told ln(s) / 4, and answers F, from which

    x = d^2 / (s^2 + d^2) (x + s e) + s d / sqrt(s^2 + d^2) F

(its table 1). SVD's answer is v = -F, with d = 1 (arXiv 2311.15127, appendix D). An error of x is
s d / sqrt(s^2 + d^2) times the error of the answer, so that EDM's weight of the squared error of x,
(s^2 + d^2) / (s d)^2, is a weight of 1 of that of the answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from modelgrow.surgery import TrainError

from .objective import of_samples

SIGNS = {"epsilon": 1, "v_prediction": -1}
"""Of F in a scheduler's answer, by its `prediction_type`: diffusers calls EDM's own "epsilon"."""
RHO = 7.0
"""Of Karras' schedule (arXiv 2206.00364, equation 5)."""
NUM_LEVELS = 1000
"""Of the published ExVideo script's schedule."""


def karras_levels(count: int, *, low: float, high: float) -> torch.Tensor:
    """Noise levels from `high` down to `low`, even in their 7th root. Shape (count,), float32."""
    ends = high ** (1 / RHO), low ** (1 / RHO)
    return torch.linspace(ends[0], ends[1], count) ** RHO


@dataclass(frozen=True, kw_only=True)
class Edm:
    """The objective for the loop. Levels are sigmas, float32."""

    kind: str = "standard"
    """"standard": log-normal levels, EDM's weights. "exvideo": the published ExVideo script, whose levels are even
    over the 1000 of Karras' schedule, and whose weights are the square root of EDM's."""
    contrast: float = 1.0
    """What clips are multiplied by where the model learns to answer them. ExVideo's script has 1.01, against gray
    clips; its latents were smaller than those that SVD was trained on, see `scale`."""
    scale: float = 1.0
    """What latents are multiplied by everywhere. ExVideo's script scales them as SDXL does, by 0.13025, and not by
    SVD's 0.18215: 0.13025 / 0.18215 = 0.715 trains as it does."""
    mean: float = 0.7
    """Of ln(s), for "standard": with the next, what public scripts train SVD with."""
    deviation: float = 1.6
    low: float = 0.002
    """The lowest level of Karras' schedule, and the highest."""
    high: float = 700.0
    data: float = 1.0
    """d, the standard deviation of latents."""
    sign: int = -1
    """Of F in the answer."""
    by_length: bool = False
    """Levels of a clip of F latent frames are sqrt(F) times as high, see `longer`."""

    @classmethod
    def of(cls, scheduler: Any, *, kind: str = "standard", contrast: float = 1.0, scale: float = 1.0) -> Edm:
        """From a diffusers scheduler. Raises `TrainError` if it predicts something else."""
        config = scheduler.config
        if config.prediction_type not in SIGNS:
            raise TrainError(
                f"{type(scheduler).__name__} predicts {config.prediction_type!r}; known are {', '.join(SIGNS)}"
            )
        return cls(
            kind=kind,
            contrast=contrast,
            scale=scale,
            low=float(config.sigma_min),
            high=float(config.sigma_max),
            data=float(config.get("sigma_data", 1.0)),
            sign=SIGNS[config.prediction_type],
        )

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        if self.kind == "exvideo":
            chosen = torch.randint(NUM_LEVELS, (batch,), generator=generator)
            return karras_levels(NUM_LEVELS, low=self.low, high=self.high)[chosen]
        return (torch.randn(batch, generator=generator) * self.deviation + self.mean).exp()

    def draw_for(self, latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Of these latents, (B, C, F, h, w)."""
        drawn = self.draw(len(latents), generator)
        return drawn * longer(latents) if self.by_length else drawn

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        level = of_samples(levels, latents)
        return (self.scale * latents + level * noise) / self._spread(level)

    def timesteps(self, levels: torch.Tensor) -> torch.Tensor:
        return 0.25 * levels.log()

    def target(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        level = of_samples(levels, latents)
        wanted = self.contrast * self.scale * latents
        seen = self.noisy(latents, noise, levels)
        return self.sign * (wanted * self._spread(level) / (level * self.data) - seen * self.data / level)

    def weights(self, levels: torch.Tensor) -> torch.Tensor:
        """What the squared error of the answer of each sample counts: 1, or for "exvideo" s / sqrt(s^2 + 1).

        The script weighs the error of x by sqrt(s^2 + 1) / s; of v that is s / sqrt(s^2 + 1). Shape (B, 1, 1, 1, 1).
        """
        even = levels / (levels.square() + 1).sqrt() if self.kind == "exvideo" else torch.ones_like(levels)
        return even.view(-1, 1, 1, 1, 1)

    def clip(self, answer: torch.Tensor, noisy: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """The clip that an answer to what the model saw stands for."""
        level = of_samples(levels, answer)
        spread = self._spread(level)
        return self.data**2 * noisy / spread + self.sign * level * self.data / spread * answer

    def _spread(self, level: torch.Tensor) -> torch.Tensor:
        """Standard deviation of x + s e."""
        return (level.square() + self.data**2).sqrt()


def longer(latents: torch.Tensor) -> float:
    """sqrt(F), of latents (B, C, F, h, w): frames tell of each other, so that a clip takes more noise than a picture.

    Cosmos' rule (arXiv 2501.03575; `adjust_video_noise` of its trainers).
    """
    return math.sqrt(latents.shape[2])
