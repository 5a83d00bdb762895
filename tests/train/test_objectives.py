"""Objectives by hand, and against diffusers' own schedulers."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from modelgrow.surgery import TrainError
from modelgrow.train.objectives import Diffusion, RectifiedFlow, objective_of

X = torch.randn(3, 2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
E = torch.randn(X.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_diffusion_is_the_schedulers(prediction: str) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction)
    objective = Diffusion.of(scheduler)
    levels = torch.tensor([0, 500, 999])
    noisy = objective.noisy(X, E, levels)
    torch.testing.assert_close(noisy, scheduler.add_noise(X, E, levels))
    expected = E if prediction == "epsilon" else scheduler.get_velocity(X, E, levels)
    torch.testing.assert_close(objective.target(X, E, levels), expected)


def test_perfect_prediction_of_v_gives_the_clip_back() -> None:
    """x = sqrt(a) x_t - sqrt(1 - a) v, what every sampler computes from a model's answer."""
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction")
    objective = Diffusion.of(scheduler)
    levels = torch.tensor([10, 300, 900])
    a = scheduler.alphas_cumprod[levels].float().view(-1, 1, 1, 1, 1)
    noisy, v = objective.noisy(X, E, levels), objective.target(X, E, levels)
    torch.testing.assert_close(a.sqrt() * noisy - (1 - a).sqrt() * v, X, rtol=1e-4, atol=1e-5)


def test_flow_is_what_the_scheduler_integrates() -> None:
    """One Euler step of the true direction, from any level to the next, stays on the line to the clip."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(5)
    objective = objective_of(scheduler)
    sigmas = scheduler.sigmas[:1].repeat(3)
    noisy = objective.noisy(X, E, sigmas)
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        torch.testing.assert_close(objective.timesteps(sigma[None]), timestep[None])
        noisy = scheduler.step(objective.target(X, E, sigmas), timestep, noisy).prev_sample
    torch.testing.assert_close(noisy, X, rtol=1e-4, atol=1e-5)


def test_shift_by_hand() -> None:
    """shift 3 moves the middle of an even density, 0.5, to 3 * 0.5 / (1 + 2 * 0.5) = 0.75."""
    plain, shifted = RectifiedFlow(sampling="uniform"), RectifiedFlow(sampling="uniform", shift=3.0)
    even = plain.draw(1001, torch.Generator().manual_seed(0))
    levels = shifted.draw(1001, torch.Generator().manual_seed(0))
    torch.testing.assert_close(levels, 3 * even / (1 + 2 * even))
    assert abs(even.median().item() - 0.5) < 0.05
    assert abs(levels.median().item() - 0.75) < 0.05
    middle = RectifiedFlow().draw(4000, torch.Generator().manual_seed(0))
    assert ((middle > 0.25) & (middle < 0.75)).float().mean().item() > 0.7, "logit-normal is densest in the middle"


def test_own_shift_comes_first() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    assert objective_of(scheduler) == RectifiedFlow(shift=5.0)
    assert objective_of(scheduler, sampling="uniform", shift=2.0) == RectifiedFlow(sampling="uniform", shift=2.0)


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler(prediction_type="sample"), EulerDiscreteScheduler(prediction_type="sample")]
)
def test_what_is_not_trained_says_so(scheduler: object) -> None:
    with pytest.raises(TrainError, match="predicts 'sample'"):
        objective_of(scheduler)
