"""Cosmos' objectives by hand, against diffusers' EDM scheduler, and in numbers drawn."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import EDMEulerScheduler

from modelgrow.surgery import TrainError
from modelgrow.train.objectives import Edm, GivenFrames, RectifiedFlow, objective_of
from modelgrow.train.objectives.cosmos_flow import CosmosFlow
from modelgrow.train.objectives.objective import draw_levels, mean_error

X, E, ANSWER = torch.randn(3, 4, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LEVELS = torch.tensor([0.03, 0.9, 7.0, 80.0])


def latents(batch: int, frames: int) -> torch.Tensor:
    return torch.zeros(batch, 1, frames, 1, 1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm_is_the_schedulers(prediction: str) -> None:
    scheduler = EDMEulerScheduler(sigma_data=0.5, prediction_type=prediction)
    objective = objective_of(scheduler)
    assert objective == Edm(data=0.5, sign={"epsilon": 1, "v_prediction": -1}[prediction], low=0.002, high=80.0)
    s = LEVELS.view(-1, 1, 1, 1, 1)
    seen, answer = objective.noisy(X, E, LEVELS), objective.target(X, E, LEVELS)
    torch.testing.assert_close(seen, scheduler.precondition_inputs(X + s * E, s))
    torch.testing.assert_close(objective.timesteps(LEVELS), scheduler.precondition_noise(LEVELS))
    torch.testing.assert_close(scheduler.precondition_outputs(X + s * E, answer, s), X, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        objective.clip(ANSWER, seen, LEVELS), scheduler.precondition_outputs(X + s * E, ANSWER, s), rtol=1e-4, atol=1e-5
    )


def test_edm_by_hand() -> None:
    """d = 0.5, s = 1: c_in = 1 / sqrt(1.25), c_skip = 0.2, c_out = 0.5 / sqrt(1.25); x = 1, e = 2: x + s e = 3."""
    objective = Edm(data=0.5, sign=1)
    x, e, s = torch.ones(1, 1), torch.full((1, 1), 2.0), torch.ones(1)
    assert objective.noisy(x, e, s).item() == pytest.approx(3 / math.sqrt(1.25))
    assert objective.target(x, e, s).item() == pytest.approx((1 - 0.2 * 3) / (0.5 / math.sqrt(1.25)))
    assert objective.timesteps(s).item() == 0


def test_the_error_of_the_answer_is_edms_weighted_error_of_the_clip() -> None:
    """(s^2 + d^2) / (s d)^2 times that of the clip (Karras et al., table 1)."""
    objective = Edm(data=0.5, sign=1)
    clips = objective.clip(ANSWER, objective.noisy(X, E, LEVELS), LEVELS)
    weight = (LEVELS**2 + 0.25) / (LEVELS * 0.5) ** 2
    found = mean_error(objective, ANSWER, objective.target(X, E, LEVELS), LEVELS)
    expected = (weight * (clips - X).square().flatten(1).mean(1)).mean()
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=0)


def test_edm_predicts_noise_or_v() -> None:
    scheduler = EDMEulerScheduler()
    scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(TrainError, match="EDMEulerScheduler predicts 'sample'; known are epsilon, v_prediction"):
        objective_of(scheduler)


def test_longer_clips_are_noisier() -> None:
    """By sqrt(F) in EDM's levels; as a share of noise that is a shift by sqrt(F)."""
    for frames in (1, 16):
        edm = Edm(mean=0.0, deviation=1.0, by_length=True)
        logs = draw_levels(edm, latents(20_000, frames), torch.Generator().manual_seed(0)).log()
        flow = CosmosFlow(highest=0.0)
        shares = draw_levels(flow, latents(20_000, frames), torch.Generator().manual_seed(0))
        for levels in (logs, torch.logit(shares.double())):
            assert levels.mean().item() == pytest.approx(math.log(math.sqrt(frames)), abs=0.03)
            assert levels.std().item() == pytest.approx(1.0, abs=0.03)
    fixed = draw_levels(CosmosFlow(by_length=False, highest=0.0), latents(9, 16), torch.Generator().manual_seed(0))
    assert torch.equal(fixed, RectifiedFlow().draw(9, torch.Generator().manual_seed(0)))


def test_one_level_in_twenty_is_almost_noise_alone() -> None:
    levels = draw_levels(CosmosFlow(), latents(40_000, 1), torch.Generator().manual_seed(0)).double()
    odds = levels / (1 - levels)
    far = odds[odds > 199]
    assert len(far) / len(odds) == pytest.approx(0.05, abs=0.004)
    assert far.max().item() < 1.1e5
    assert far.log().mean().item() == pytest.approx((math.log(200) + math.log(1e5)) / 2, abs=0.1)


def test_the_flows_error_is_predict_2s_weighted_error_of_the_clip() -> None:
    """Its trainer weighs it by (1 + s)^2 / s^2, s = t / (1 - t), where the clip is (x + s e)(1 - t) - t F."""
    t = LEVELS / (1 + LEVELS)
    s = LEVELS.view(-1, 1, 1, 1, 1)
    share = t.view(-1, 1, 1, 1, 1)
    objective = CosmosFlow()
    torch.testing.assert_close(objective.noisy(X, E, t), (X + s * E) * (1 - share), rtol=1e-4, atol=1e-4)
    clips = (X + s * E) * (1 - share) - share * ANSWER
    expected = ((1 + LEVELS) ** 2 / LEVELS**2 * (clips - X).square().flatten(1).mean(1)).mean()
    found = mean_error(objective, ANSWER, objective.target(X, E, t), t)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=0)


def test_first_frames_are_given() -> None:
    objective = GivenFrames(flow=RectifiedFlow(), shares=(0.5, 0.25, 0.25), level=0.0001)
    levels = draw_levels(objective, latents(8_000, 3), torch.Generator().manual_seed(0))
    given = levels < 0
    assert set(map(tuple, given.tolist())) == {(False,) * 3, (True, False, False), (True, True, False)}
    counts = torch.bincount(given.sum(1)) / len(given)
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.25, 0.25]), rtol=0, atol=0.02)
    assert bool((levels[given] == -0.0001).all())
    last = levels[:, 2:].expand(-1, 3)
    assert torch.equal(levels[~given], last[~given]), "all other frames of a sample have one level"
    few = draw_levels(objective, latents(200, 2), torch.Generator().manual_seed(0)) < 0
    assert few.sum(1).max() == 1, "never all"
    assert not (draw_levels(objective, latents(200, 1), torch.Generator().manual_seed(0)) < 0).any()
    assert objective.draw(5, torch.Generator().manual_seed(0)).shape == (5, 1)


@pytest.mark.parametrize("flow", [RectifiedFlow(), Edm(data=0.5, sign=1)], ids=["flow", "edm"])
def test_given_frames_are_clean_and_do_not_count(flow: RectifiedFlow | Edm) -> None:
    objective = GivenFrames(flow=flow, shares=(0.0, 1.0), level=0.0001)
    levels = torch.tensor([[-0.0001, 0.3, 0.3], [0.8, 0.8, 0.8]])
    noisy, target = objective.noisy(X[:2], E[:2], levels), objective.target(X[:2], E[:2], levels)
    whole = torch.tensor([0.3, 0.8])
    assert torch.equal(noisy[0, :, 0], X[0, :, 0])
    for found, expected in (
        (noisy, flow.noisy(X[:2], E[:2], whole)),
        (target, flow.target(X[:2], E[:2], whole)),
    ):
        torch.testing.assert_close(found[0, :, 1:], expected[0, :, 1:])
        torch.testing.assert_close(found[1], expected[1])
    told, given = objective.timesteps(levels).unbind(1)
    assert given.tolist() == [[1, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(told, flow.timesteps(levels.abs()))
    error = (ANSWER[:2] - target).square()
    error[0, :, 0] = 0
    torch.testing.assert_close(mean_error(objective, ANSWER[:2], target, levels), error.mean())


def test_cosmos_1_puts_noise_on_given_frames() -> None:
    """Of a level of its own, whose preconditioning they have: (x + a e) / sqrt(a^2 + d^2)."""
    objective = GivenFrames(flow=Edm(data=0.5, sign=1), shares=(0.0, 1.0), level=None)
    levels = draw_levels(objective, latents(20_000, 2), torch.Generator().manual_seed(0))
    logs = (-levels[:, 0]).log()
    assert logs.mean().item() == pytest.approx(-3.0, abs=0.05)
    assert logs.std().item() == pytest.approx(2.0, abs=0.05)
    seen = objective.noisy(X[:1], E[:1], torch.tensor([[-0.2, 3.0, 3.0]]))
    torch.testing.assert_close(seen[:, :, 0], (X[:1] + 0.2 * E[:1])[:, :, 0] / math.sqrt(0.2**2 + 0.5**2))
