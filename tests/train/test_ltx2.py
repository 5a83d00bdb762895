"""LTX-2 trains its video apart from its sound; its call in the pipeline's run is held in test_more_families too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LTX2ImageToVideoPipeline
from growths import grow
from PIL import Image
from tiny_ltx2 import OPTIONS, isolated, ltx2
from tiny_runs import bytes_of, settings
from tiny_trained import tiny

from modelgrow.surgery import (
    TrainError,
    open_checkpoint,
)
from modelgrow.train.families import ltx2 as family
from modelgrow.train.objectives import RectifiedFlow
from modelgrow.train.objectives.first_frame_flow import FirstFrameFlow
from modelgrow.train.objectives.frame_masks import GIVEN
from modelgrow.train.objectives.objective import draw_levels
from modelgrow.train.objectives.shifted_flow import ShiftedFlow
from modelgrow.train.run import train
from modelgrow.train.select import reached
from modelgrow.train.setup import choose_objective

PROMPTS = ["a red circle moves right", "a blue square"]


@pytest.fixture(params=["ltx2", "ltx2-gated", "ltx2-keyframes"], scope="module")
def pipeline(request: pytest.FixtureRequest) -> Any:
    """LTX-2, LTX-2.3 and LTX-2.5."""
    with torch.random.fork_rng():
        made = ltx2(request.param)
    made.set_progress_bar_config(disable=True)
    return made


def calls_of(pipeline: Any, **options: Any) -> list[tuple[Any, dict[str, Any], Any]]:
    """Of the model in the first of two steps of the pipeline."""
    calls: list[tuple[Any, dict[str, Any], Any]] = []
    handle = pipeline.transformer.register_forward_hook(
        lambda _module, args, kwargs, output: calls.append((args, kwargs, output)), with_kwargs=True
    )
    generator = torch.Generator().manual_seed(0)
    pipeline(prompt=PROMPTS, num_inference_steps=2, generator=generator, output_type="latent", **{**OPTIONS, **options})
    handle.remove()
    return calls[: len(calls) // 2]


def test_video_by_itself_is_the_pipelines_call(pipeline: Any) -> None:
    """Of the two calls in a step that which keeps the streams apart, with the pipeline's own noise as its sound."""
    joint, apart = calls_of(pipeline)
    assert not joint[1]["isolate_modalities"]
    noisy, timesteps, expected = isolated(pipeline, [apart])
    with torch.no_grad():
        found = family.predict(pipeline, pipeline.transformer, noisy, timesteps, family.encode_text(pipeline, PROMPTS))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(joint[2][0], apart[2][0], atol=1e-2), "with the sound the video is another"


def test_idle_is_what_has_no_gradient(pipeline: Any) -> None:
    model = pipeline.transformer.requires_grad_(True)
    noisy, timesteps, _ = isolated(pipeline, calls_of(pipeline))
    text = family.encode_text(pipeline, PROMPTS)
    family.predict(pipeline, model, noisy, timesteps, text).square().mean().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    model.zero_grad()
    model.requires_grad_(False)
    assert without == {name for name, _ in model.named_parameters() if family.idle(name)}
    assert any("audio_to_video_attn" in name for name in without)


def test_frame_rates_are_the_clips_own(pipeline: Any) -> None:
    """Positions are seconds: a batch of two rates answers as the pipeline does at each."""
    pixels = torch.zeros(2, 3, 9, 32, 64)
    rates = family.encode_conditions(pipeline, pixels, [12.0, None])
    assert rates[family.RATES].tolist() == [12_000, 24_000]
    slow, usual = (isolated(pipeline, calls_of(pipeline, frame_rate=rate)) for rate in (12.0, 24.0))
    assert not torch.allclose(slow[2], usual[2], atol=1e-3)
    with torch.no_grad():
        text = {**family.encode_text(pipeline, PROMPTS), **rates}
        found = family.predict(pipeline, pipeline.transformer, torch.stack([slow[0][0], usual[0][1]]), slow[1], text)
    torch.testing.assert_close(found, torch.stack([slow[2][0], usual[2][1]]), rtol=1e-4, atol=1e-5)


def test_a_first_frame_is_the_pipelines_picture(pipeline: Any) -> None:
    """Its latents, the timesteps of its tokens, and the answer of the model."""
    from_image = LTX2ImageToVideoPipeline(**{n: p for n, p in pipeline.components.items() if n != "duration_head"})
    from_image.set_progress_bar_config(disable=True)
    picture = torch.randint(256, (32, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(picture.numpy())
    noisy, timesteps, expected = isolated(pipeline, calls_of(from_image, image=[image, image], image_crf=0))
    pixels = (picture.permute(2, 0, 1).float() / 127.5 - 1)[None, :, None].repeat(2, 1, 9, 1, 1)
    pixels[:, :, 1:] = 0  # what comes after does not reach it
    objective = choose_objective(family, from_image, settings(Path("model"), Path("run")))
    assert isinstance(objective, FirstFrameFlow)
    assert isinstance(objective.flow, ShiftedFlow)
    with torch.no_grad():
        latents = family.encode_video(pipeline, pixels)
        levels = draw_levels(objective, latents, torch.Generator().manual_seed(0))
        assert (levels[:, 0] == GIVEN).all()
        levels[:, 1:] = timesteps.amax() / 1000
        torch.testing.assert_close(objective.noisy(latents, latents, levels)[:, :, 0], noisy[:, :, 0])
        told = objective.timesteps(levels)
        torch.testing.assert_close(told.repeat_interleave(8 * 16, dim=1), timesteps)
        text = family.encode_text(pipeline, PROMPTS)
        found = family.predict(pipeline, pipeline.transformer, noisy, told, text)
        wrong = family.predict(pipeline, pipeline.transformer, noisy, told.amax(dim=1), text)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(wrong, expected, atol=1e-3)


def test_noise_levels_are_the_published_trainers() -> None:
    pipeline = tiny("ltx2")

    def chosen(**changes: Any) -> Any:
        return choose_objective(family, pipeline, settings(Path("model"), Path("run"), **changes))

    flow = ShiftedFlow(patch=1, few=1024, many=4096, low=0.95, high=2.05)
    assert chosen() == flow
    assert chosen(shift=3.0).mean(9) == chosen(shift=3.0).mean(9000) == pytest.approx(1.0986, abs=1e-4)  # ln 3
    assert chosen(timestep_sampling="uniform") == RectifiedFlow(sampling="uniform", shift=1.0)
    assert chosen(first_frame=0.5) == FirstFrameFlow(flow=flow, share=0.5)


def test_what_sound_alone_goes_through_can_not_train() -> None:
    names = ["transformer_blocks.4.audio_ff.net.2.weight", "transformer_blocks.4.ff.net.2.weight"]
    assert reached(names, family.idle) == (names[1],)
    assert reached(names, None) == tuple(names)
    with pytest.raises(TrainError, match=r"4.audio_ff.net.2.weight and all else that would train \(1 tensors\) has no"):
        reached(names[:1], family.idle)


def test_only_the_new_blocks_video_half_trains(tmp_path: Path) -> None:
    tiny("ltx2").save_pretrained(tmp_path / "base")
    grown = grow(tmp_path / "base", tmp_path / "grown", "suffix", blocks=1)
    sizes = {name: OPTIONS[name] for name in ("num_frames", "height", "width")}
    result = train(settings(grown, tmp_path / "run", data="shapes:1:2", steps=2, batch_size=2, **sizes))
    record = open_checkpoint(grown / "transformer").record
    assert record is not None
    before, after = bytes_of(grown), bytes_of(result.model)
    assert {name for name in before if before[name] != after[name]} == {
        name for name in record.new if not family.idle(name)
    }
    assert result.growth is not None
