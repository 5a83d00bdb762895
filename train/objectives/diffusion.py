"""Diffusion on a discrete noise schedule, the objective of CogVideoX, Latte and AnimateDiff.

A sample at timestep t is `sqrt(a_t) x + sqrt(1 - a_t) e` with data x, noise e and the schedule's
`alphas_cumprod` a (Ho et al., arXiv 2006.11239, equation 4). The model predicts e ("epsilon") or
v = `sqrt(a_t) e - sqrt(1 - a_t) x` ("v_prediction", Salimans and Ho, arXiv 2202.00512, appendix D).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch

from modelgrow.surgery import TrainError

from .objective import of_samples

PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True, kw_only=True, eq=False)
class Diffusion:
    """The objective for the loop. Levels are timesteps, int64, drawn evenly."""

    alphas_cumprod: torch.Tensor
    """The scheduler's own table, shape (num_train_timesteps,), float32 on the CPU."""
    prediction: str

    @classmethod
    def of(cls, scheduler: Any) -> Self:
        """From a diffusers scheduler. Raises `TrainError` if it predicts something else."""
        prediction = scheduler.config.prediction_type
        if prediction not in PREDICTIONS:
            raise TrainError(f"{type(scheduler).__name__} predicts {prediction!r}; known are {', '.join(PREDICTIONS)}")
        return cls(alphas_cumprod=scheduler.alphas_cumprod.float().cpu(), prediction=prediction)

    def draw(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randint(len(self.alphas_cumprod), (batch,), generator=generator)

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        signal, spread = self._scales(latents, levels)
        return signal * latents + spread * noise

    def timesteps(self, levels: torch.Tensor) -> torch.Tensor:
        return levels

    def target(self, latents: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        if self.prediction == "epsilon":
            return noise
        signal, spread = self._scales(latents, levels)
        return signal * noise - spread * latents

    def _scales(self, latents: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a = of_samples(self.alphas_cumprod.to(levels.device)[levels], latents).to(latents.dtype)
        return a.sqrt(), (1 - a).sqrt()
