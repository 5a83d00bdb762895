"""Rectified flow with a given first frame: what is noisy, what is told, what counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from tiny_from_images import tiny

from modelgrow.surgery import TrainError
from modelgrow.train.objectives import RectifiedFlow
from modelgrow.train.objectives.first_frame_flow import FirstFrameFlow, first_frame_flow, of_tokens
from modelgrow.train.objectives.frame_masks import GIVEN
from modelgrow.train.objectives.objective import draw_levels, mean_error
from modelgrow.train.settings import Settings


def settings(**changes: Any) -> Settings:
    return Settings(model="m", data="d", output="o", **changes)


def test_a_given_frame_is_itself_at_timestep_zero_and_does_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, noise, answer = torch.randn(3, 2, 4, 3, 2, 2, generator=generator)
    objective = FirstFrameFlow(flow=RectifiedFlow(shift=3.0))
    levels = draw_levels(objective, latents, generator)
    assert levels[:, 0].tolist() == [GIVEN, GIVEN]
    assert torch.equal(levels[:, 1], levels[:, 2])
    seen, told = objective.noisy(latents, noise, levels), objective.timesteps(levels)
    assert torch.equal(seen[:, :, 0], latents[:, :, 0])
    assert told[:, 0].tolist() == [0.0, 0.0]
    share = levels[:, 1].view(2, 1, 1, 1, 1)
    torch.testing.assert_close(seen[:, :, 1:], ((1 - share) * latents + share * noise)[:, :, 1:])
    torch.testing.assert_close(told[:, 1], levels[:, 1] * 1000)
    error = mean_error(objective, answer, objective.target(latents, noise, levels), levels)
    torch.testing.assert_close(error, (answer - (noise - latents))[:, :, 1:].square().mean())


def test_without_given_frames_it_is_rectified_flow() -> None:
    latents, noise, answer = torch.randn(3, 2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    plain, objective = RectifiedFlow(shift=3.0), FirstFrameFlow(flow=RectifiedFlow(shift=3.0), share=0.0)
    levels = plain.draw(2, torch.Generator().manual_seed(1))
    frames = draw_levels(objective, latents, torch.Generator().manual_seed(1))
    assert torch.equal(frames, levels[:, None].expand(2, 3))
    assert torch.equal(objective.noisy(latents, noise, frames), plain.noisy(latents, noise, levels))
    target = plain.target(latents, noise, levels)
    assert mean_error(objective, answer, target, frames) == mean_error(plain, answer, target, levels)


def test_share_is_of_the_samples_and_single_frames_have_none() -> None:
    generator = torch.Generator().manual_seed(0)
    objective = FirstFrameFlow(flow=RectifiedFlow(), share=0.3)
    given = draw_levels(objective, torch.zeros(4000, 1, 2, 1, 1), generator)[:, 0] == GIVEN
    assert given.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (draw_levels(FirstFrameFlow(flow=RectifiedFlow()), torch.zeros(9, 1, 1, 1, 1), generator) >= 0).all()


def test_tokens_have_their_frames_timesteps() -> None:
    assert of_tokens(torch.tensor([[0.0, 7.0]]), 3).tolist() == [[0.0, 0.0, 0.0, 7.0, 7.0, 7.0]]
    assert of_tokens(torch.tensor([5.0, 7.0]), 3).tolist() == [5.0, 7.0]


def test_the_pipeline_decides_unless_the_settings_do() -> None:
    pipeline, flow = tiny("wan-ti2v"), RectifiedFlow(shift=5.0)
    assert first_frame_flow(pipeline, settings()) == FirstFrameFlow(flow=flow, share=1.0)
    assert first_frame_flow(pipeline, settings(first_frame=0.25)) == FirstFrameFlow(flow=flow, share=0.25)
    assert first_frame_flow(pipeline, settings(first_frame=0.0)) == flow

    class TextToVideo:
        scheduler = pipeline.scheduler

    assert first_frame_flow(TextToVideo(), settings()) == flow
    assert first_frame_flow(TextToVideo(), settings(first_frame=1.0)) == FirstFrameFlow(flow=flow)


def test_other_schedulers_and_shares_say_so() -> None:
    class Other:
        scheduler = DDIMScheduler()

    with pytest.raises(TrainError, match="DDIMScheduler: a given first frame needs rectified flow"):
        first_frame_flow(Other(), settings(first_frame=1.0))
    with pytest.raises(TrainError, match=r"first_frame is 1\.5; it must lie between 0 and 1"):
        settings(first_frame=1.5)
