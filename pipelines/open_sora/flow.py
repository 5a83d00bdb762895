"""Rectified flow as Open-Sora 1.2 samples it: diffusers' scheduler, shifted by size and length; frames that are given.

    x_t = (1 - t / 1000) x + (t / 1000) e,   the model predicts x - e

with data x and noise e: the negative of what diffusers' flow models predict. Source: `opensora/schedulers/rf/`.

Shape letters: B clips, C channels, F latent frames, h, w height and width of the latents, N steps.
"""

from __future__ import annotations

from typing import Any

import torch

NUM_TRAIN_TIMESTEPS = 1000
_BASE_PIXELS = 512 * 512
_CHUNK, _LATENT_CHUNK = 17, 5


def timestep_shift(height: float, width: float, num_frames: int) -> float:
    """How much larger the signal of a large or long clip is than that of one 512 x 512 picture: r, see below."""
    return float(_ratio(height, width, num_frames))


def timestep_transform(timesteps: torch.Tensor, height: float, width: float, num_frames: int) -> torch.Tensor:
    """t' = r t / (1 + (r - 1) t), r = sqrt(H W / 512^2) sqrt(latent frames), t of 1000.

    Args:
        timesteps: In [0, 1000], any shape, float32.
        height, width: In pixels.
        num_frames: Of the clip, in pixels; the reference's latent frames are `num_frames // 17 * 5`, and 1 for 1.
            For 2 to 16 frames it has r = 0 there, of which NaN comes; here they count as 17.

    Returns:
        float32, with the reference's round-off: 1000 can become 1000.0001, see `FrameConditions`.
    """
    ratio = _ratio(height, width, num_frames).to(timesteps.device)
    levels = timesteps / NUM_TRAIN_TIMESTEPS
    transformed: torch.Tensor = ratio * levels / (1 + (ratio - 1) * levels) * NUM_TRAIN_TIMESTEPS
    return transformed


def _ratio(height: float, width: float, num_frames: int) -> torch.Tensor:
    """In float32 as the reference has it, for its round-off."""
    pixels = torch.tensor(float(height)) * torch.tensor(float(width))
    frames = 1 if num_frames == 1 else max(num_frames, _CHUNK) // _CHUNK * _LATENT_CHUNK
    return (pixels / _BASE_PIXELS).sqrt() * torch.tensor(float(frames)).sqrt()


def set_flow_timesteps(
    scheduler: Any, num_inference_steps: int, *, height: float, width: float, num_frames: int, device: Any = None
) -> torch.Tensor:
    """Set a FlowMatchEulerDiscreteScheduler to N steps for clips of this size and length.

    Returns:
        What the model is told, (N,), float32, the reference's numbers.
    """
    levels = [1 - step / num_inference_steps for step in range(num_inference_steps)]
    exact = torch.tensor([level * NUM_TRAIN_TIMESTEPS for level in levels])
    timesteps = timestep_transform(exact, height, width, num_frames)
    scheduler.set_shift(timestep_shift(height, width, num_frames))
    scheduler.set_timesteps(sigmas=levels, timesteps=timesteps.tolist(), device=device)
    scheduler.set_begin_index(0)
    return scheduler.timesteps  # type: ignore[no-any-return]


def flow_step(scheduler: Any, velocity: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """One step along the predicted x - e; diffusers' scheduler expects e - x. Latents are float32."""
    stepped: torch.Tensor = scheduler.step(-velocity, timestep, latents, return_dict=False)[0]
    return stepped


def add_noise(latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """x_t of x. Shapes (B, C, F, h, w); `timestep` (B,) or a number."""
    signal = (1 - timestep / NUM_TRAIN_TIMESTEPS).reshape(-1, 1, 1, 1, 1)
    return signal * latents + (1 - signal) * noise


class FrameConditions:
    """Frames that are given, through the steps of one clip.

    A frame of edit ratio m rests until t falls to 1000 m, gets noise of that level then, once, and is denoised from
    there. A frame of ratio 0 rests to the end.

    A ratio of 1 is denoised from the start, but for one case: for small short clips, r < 0.5, t begins at
    1000.0001 for its round-off, so nothing moves in the first step, and all frames get fresh noise in the second. The
    reference does so, and clips conditioned at these sizes depend on it.

    Args:
        ratios: What part of each frame is made anew, (B, F), float32.
    """

    def __init__(self, ratios: torch.Tensor) -> None:
        self.ratios = ratios
        self._open = ratios == 1

    def begin_step(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise for the frames whose time has come.

        Args:
            latents: (B, C, F, h, w).
            noise: Fresh, of the same shape.
            timestep: t, a number.

        Returns:
            What the model sees, and which frames are denoised, (B, F) bool.
        """
        denoised = self.ratios * NUM_TRAIN_TIMESTEPS >= timestep
        fresh = denoised & ~self._open
        self._open = denoised
        return torch.where(_frames(fresh), add_noise(latents, noise, timestep), latents), denoised

    def end_step(self, stepped: torch.Tensor, before: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
        """Frames that rest stay as they were before the step."""
        return torch.where(_frames(denoised), stepped, before)


def _frames(mask: torch.Tensor) -> torch.Tensor:
    return mask[:, None, :, None, None]
