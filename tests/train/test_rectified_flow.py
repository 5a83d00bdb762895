"""The objective agrees with the scheduler that samples with it."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from modelgrow.train.objectives import rectified_flow


def test_noisy_sample_is_the_schedulers() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 5, 5, 5, generator=generator)[:, :3].unbind(0)
    timesteps = scheduler.timesteps[[10, 500, 900]]
    sigmas = timesteps / rectified_flow.NUM_TRAIN_TIMESTEPS
    expected = scheduler.scale_noise(latents, timesteps, noise)
    torch.testing.assert_close(rectified_flow.noisy_sample(latents, noise, sigmas), expected)
    torch.testing.assert_close(rectified_flow.timesteps(sigmas), timesteps)


def test_a_perfect_model_is_integrated_back_to_the_data() -> None:
    """Euler steps along the target from pure noise end at the data, however few they are."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, 3, 3, 3, generator=generator).unbind(0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(5)
    sample = noise
    for timestep in scheduler.timesteps:
        sample = scheduler.step(rectified_flow.target(latents, noise), timestep, sample).prev_sample
    torch.testing.assert_close(sample, latents, atol=1e-5, rtol=0)


def test_sigmas_by_hand() -> None:
    sigmas = rectified_flow.sample_sigmas(20_000, mean=0.0, std=1.0, generator=torch.Generator().manual_seed(0))
    assert 0 < sigmas.min() < sigmas.max() < 1
    assert abs(sigmas.mean().item() - 0.5) < 0.01
    assert abs((sigmas < 0.2689).float().mean().item() - 0.1587) < 0.01  # sigmoid(-1); P(normal < -1)
    high = rectified_flow.sample_sigmas(20_000, mean=1.0, std=1.0, generator=torch.Generator().manual_seed(0))
    assert abs(high.median().item() - 0.7311) < 0.01  # sigmoid(1)
