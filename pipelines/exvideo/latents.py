"""What ExVideo does to latents before and after they are denoised."""

from __future__ import annotations

from typing import Any

import torch

KARRAS_RHO = 7.0
"""Karras et al., arXiv 2206.00364, equation 5; as diffusers has it."""


def post_process(latents: torch.Tensor, *, normalize: bool, contrast: float) -> torch.Tensor:
    """Give every frame the mean and standard deviation of its clip, then multiply by `contrast`.

    Over a long clip brightness and contrast drift; the first step takes the drift away. What the second one is for:
    see `ExVideoPipeline`.

    Args:
        latents: (B, T, C, h, w), as the VAE's scaling has them.
        normalize: Whether to do the first step.
        contrast: 1.0 changes nothing.

    Returns:
        The same shape and dtype, computed in float32.
    """
    clip = latents.float()
    if normalize:
        every, frame = (1, 2, 3, 4), (2, 3, 4)
        spread = clip.std(every, keepdim=True) / clip.std(frame, keepdim=True).clamp_min(1e-8)
        clip = (clip - clip.mean(frame, keepdim=True)) * spread + clip.mean(every, keepdim=True)
    return (clip * contrast).to(latents.dtype)


def sigmas_from(scheduler: Any, num_inference_steps: int, strength: float) -> list[float]:
    """Noise levels of a clip that is not made from noise alone: the last `strength` of the way, in as many steps.

    They are even in sigma^(1/7) between the scheduler's own ends, as Karras' are; 0 comes last.
    """
    scheduler.set_timesteps(2)
    high, low = (float(sigma) ** (1 / KARRAS_RHO) for sigma in scheduler.sigmas[:2])
    ramp = torch.linspace(1 - strength, 1, num_inference_steps, dtype=torch.float64)
    return [*((high + ramp * (low - high)) ** KARRAS_RHO).tolist(), 0.0]
