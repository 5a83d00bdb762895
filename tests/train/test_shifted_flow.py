"""Noise levels that rise with the number of tokens, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx2.pipeline_ltx2 import calculate_shift

from modelgrow.train.objectives.first_frame_flow import FirstFrameFlow
from modelgrow.train.objectives.frame_masks import GIVEN
from modelgrow.train.objectives.objective import draw_levels
from modelgrow.train.objectives.shifted_flow import EVEN, LOWEST, ShiftedFlow

DRAWS = 200_000


@pytest.mark.parametrize("tokens", [100, 1024, 2560, 4096])
def test_the_mean_is_what_the_pipeline_shifts_by(tokens: int) -> None:
    assert ShiftedFlow().mean(tokens) == pytest.approx(calculate_shift(tokens, 1024, 4096, 0.95, 2.05))


def test_the_mean_by_hand() -> None:
    objective = ShiftedFlow()
    assert [objective.mean(tokens) for tokens in (1024, 2560, 4096, 8192)] == pytest.approx([0.95, 1.5, 2.05, 2.05])


@pytest.mark.parametrize(("percentile", "normal"), [(0.25, -0.6745), (0.5, 0.0), (0.975, 1.96)])
def test_levels_by_hand(percentile: float, normal: float) -> None:
    """9 of 10 levels are sigmoid(n + 2.05), brought from its percentiles 0.5 and 99.9 to 0 and 1; the tenth is even."""
    levels = ShiftedFlow(fixed=2.05).draw(DRAWS, torch.Generator().manual_seed(0))
    first, at, last = (1 / (1 + math.exp(-value - 2.05)) for value in (-2.5758, normal, 3.0902))
    level = (at - first) / (last - first)
    share = (1 - EVEN) * percentile + EVEN * (level - LOWEST) / (1 - LOWEST)
    assert (levels < level).float().mean().item() == pytest.approx(share, abs=0.005)


def test_a_scheduler_that_does_not_shift_by_size_says_nothing_of_it() -> None:
    assert ShiftedFlow.of(FlowMatchEulerDiscreteScheduler(), patch=1, fixed=None) == ShiftedFlow()


def test_ends() -> None:
    """The thousandth above the stretch is at 1, and what is below it is mirrored, not lost."""
    levels = ShiftedFlow(fixed=0.95).draw(DRAWS, torch.Generator().manual_seed(0))
    assert levels.min() >= 0
    assert (levels < LOWEST).sum() == 0
    assert (levels == 1).float().mean().item() == pytest.approx((1 - EVEN) * 0.001, abs=3e-4)


def test_longer_clips_are_trained_at_higher_noise() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=3.0)
    objective = ShiftedFlow.of(scheduler, patch=4, fixed=None)
    assert objective == ShiftedFlow(patch=4, few=256, many=4096, low=0.5, high=3.0)
    short, long = torch.zeros(4000, 1, 1, 32, 32), torch.zeros(4000, 1, 16, 32, 32)  # 256 and 4096 tokens of 4
    generators = [torch.Generator().manual_seed(1) for _ in range(3)]
    low, high = (
        draw_levels(objective, clip, generator) for clip, generator in zip((short, long), generators[:2], strict=True)
    )
    assert high.median() > low.median() + 0.2
    assert torch.equal(low, objective.draw(4000, generators[2]))


def test_a_given_first_frame_leaves_the_levels_of_the_others() -> None:
    latents = torch.zeros(64, 1, 3, 48, 32)  # 4608 tokens
    levels = draw_levels(FirstFrameFlow(flow=ShiftedFlow(), share=0.5), latents, torch.Generator().manual_seed(2))
    given = levels[:, 0] == GIVEN
    assert 16 < given.sum() < 48
    assert torch.equal(levels[:, 1], levels[:, 2])
    assert torch.equal(levels[~given, 0], levels[~given, 1])
    assert torch.equal(levels[:, 1], draw_levels(ShiftedFlow(), latents, torch.Generator().manual_seed(2)))
