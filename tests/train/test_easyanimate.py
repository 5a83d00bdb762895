"""EasyAnimate's inpainting and control models are called as their pipelines call them, and train. Text to video is in
`test_more_families`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from clip_files import write_captioned, write_video
from growths import grow
from tiny_easyanimate import OPTIONS, control, inpaint
from tiny_runs import differing, record_of, settings

from modelgrow.pipelines.mended import mended
from modelgrow.train.families import easyanimate
from modelgrow.train.families.family import Control
from modelgrow.train.run import train

PROMPTS = ["a red circle moves right", "a blue square"]
PIXELS = torch.rand(2, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
HIDDEN = torch.full((2, 1, 5, 32, 32), 255.0)
HIDDEN[:, :, 0] = 0


@pytest.fixture(scope="module", params=["mask made smaller", "mask encoded"])
def inpainter(request: pytest.FixtureRequest) -> Any:
    direct = request.param == "mask made smaller"
    pipeline = inpaint(resize_inpaint_mask_directly=direct, add_noise_in_inpaint_model=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def recorded(pipeline: Any, **given: Any) -> tuple[tuple[torch.Tensor, ...], dict[str, Any], torch.Tensor]:
    """Of the model's first call in a run of the pipeline."""
    calls: list[Any] = []
    handle = pipeline.transformer.register_forward_hook(
        lambda _module, args, kwargs, output: calls.append((args, kwargs, output[0])), with_kwargs=True
    )
    generator = torch.Generator().manual_seed(0)
    pipeline(PROMPTS, num_inference_steps=2, generator=generator, output_type="latent", **OPTIONS, **given)
    handle.remove()
    first: tuple[tuple[torch.Tensor, ...], dict[str, Any], torch.Tensor] = calls[0]
    return first


def test_inpainting_reads_the_first_frame_as_its_pipeline_gives_it(inpainter: Any) -> None:
    (noisy, timesteps), kwargs, expected = recorded(inpainter, video=(PIXELS + 1) / 2, mask_video=HIDDEN)
    with torch.no_grad():
        text = easyanimate.encode_text(inpainter, PROMPTS)
        conditions = easyanimate.encode_conditions(inpainter, PIXELS, [None, None], {})
        found = easyanimate.predict(inpainter, inpainter.transformer, noisy, timesteps, {**text, **conditions})
        later = PIXELS.clone()
        later[:, :, 1:] = 0
        same = easyanimate.encode_conditions(inpainter, later, [None, None], {})
        others = easyanimate.encode_conditions(inpainter, -PIXELS, [None, None], {})
        other = easyanimate.predict(inpainter, inpainter.transformer, noisy, timesteps, {**text, **others})
    torch.testing.assert_close(conditions[easyanimate.INPAINT], kwargs["inpaint_latents"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(same[easyanimate.INPAINT], conditions[easyanimate.INPAINT]), (
        "nothing but the first frame is read"
    )
    assert (other - found).abs().max() > 1e-3, "another first frame must differ"


def test_a_given_picture_has_the_noise_that_follows_from_it() -> None:
    pipeline = inpaint()
    with torch.no_grad():
        noised, again = (easyanimate.encode_conditions(pipeline, PIXELS, [None, None], {}) for _ in range(2))
        alone = easyanimate.encode_conditions(pipeline, PIXELS[1:], [None], {})
        pipeline.transformer.register_to_config(add_noise_in_inpaint_model=False)
        clean = easyanimate.encode_conditions(pipeline, PIXELS, [None, None], {})
    name = easyanimate.INPAINT
    assert torch.equal(noised[name], again[name])
    torch.testing.assert_close(alone[name], noised[name][1:], rtol=1e-4, atol=1e-5)
    assert not torch.equal(noised[name], clean[name])
    pictures = PIXELS[:, :, :1].repeat(200, 1, 1, 1, 1) * torch.linspace(0.5, 1.0, 400)[:, None, None, None, None]
    strengths = (easyanimate._noised(pictures) - pictures).flatten(1).std(dim=1).log()
    assert strengths.mean().item() == pytest.approx(-3.0, abs=0.1)
    assert strengths.std().item() == pytest.approx(0.5, abs=0.05)
    nothing = torch.full((1, 3, 1, 32, 32), easyanimate.NOT_GIVEN)
    assert torch.equal(easyanimate._noised(nothing), nothing)


@pytest.mark.parametrize("given", [False, True])
def test_a_control_clip_is_read_as_its_pipeline_reads_it(given: bool) -> None:
    """And without one there are zeros in its place."""
    pipeline = control()
    pipeline.set_progress_bar_config(disable=True)
    clip = PIXELS.flip(0)
    with mended(pipeline):
        shown = {"control_video": (clip + 1) / 2} if given else {}
        (noisy, timesteps), kwargs, expected = recorded(pipeline, **shown)
    with torch.no_grad():
        text = easyanimate.encode_text(pipeline, PROMPTS)
        clips = {"control_video": clip} if given else {}
        conditions = easyanimate.encode_conditions(pipeline, PIXELS, [None, None], clips)
        found, other = (
            easyanimate.predict(pipeline, pipeline.transformer, noisy, timesteps, {**text, **read})
            for read in (conditions, {easyanimate.CONTROL: torch.ones_like(noisy)})
        )
    assert kwargs["control_latents"].shape[1] == 8
    assert set(conditions) == ({easyanimate.CONTROL} if given else set())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (other - expected).abs().max() > 1e-3, "another control clip must differ"


def test_only_the_control_model_reads_control_clips() -> None:
    assert easyanimate.controls(control()) == {"control_video": Control(required=False)}
    assert not easyanimate.controls(inpaint())


def test_what_the_last_block_makes_of_the_text_is_idle() -> None:
    pipeline = control()
    model = pipeline.transformer
    text = {"states": torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(0))}
    easyanimate.predict(pipeline, model, torch.ones(1, 4, 2, 4, 4), torch.ones(1), text).square().sum().backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert still == {name for name, _ in model.named_parameters() if easyanimate.idle(name, model.config)}
    assert len(still) == 10


def test_a_grown_control_model_trains_on_control_clips(tmp_path: Path) -> None:
    control().save_pretrained(tmp_path / "base")
    grown = grow(tmp_path / "base", tmp_path / "grown", "suffix", blocks=1)
    (grown / "generation.json").write_text('{"num_inference_steps": 2}')
    for name in "ab":
        write_captioned(tmp_path / "data" / f"{name}.mp4", name)
        write_video(tmp_path / "data" / f"{name}.control_video.mp4")
    size = {name: OPTIONS[name] for name in ("num_frames", "height", "width")}
    few: dict[str, Any] = {"data": str(tmp_path / "data"), "steps": 2, "batch_size": 1, **size}
    result = train(settings(grown, tmp_path / "run", preview_every=2, previews=(PROMPTS[0],), **few))
    assert result.growth is not None
    assert (tmp_path / "run" / "previews" / "step-00000002-0.mp4").is_file()
    assert (tmp_path / "run" / "previews" / "control_video.mp4").is_file()


def test_a_grown_inpainting_model_trains_what_is_new(tmp_path: Path) -> None:
    inpaint().save_pretrained(tmp_path / "base")
    grown = grow(tmp_path / "base", tmp_path / "grown", blocks=1)
    (grown / "generation.json").write_text('{"num_inference_steps": 2}')
    few: dict[str, Any] = {"data": "shapes:1:2", "steps": 2, "batch_size": 1, "caption_dropout": 0.5}
    result = train(settings(grown, tmp_path / "run", preview_every=2, previews=(PROMPTS[0],), **few))
    assert (tmp_path / "run" / "previews" / "step-00000002-0.mp4").is_file()
    moved = differing(grown, result.model)
    assert moved
    assert moved <= set(record_of(result.model).new)
    assert result.growth is not None
