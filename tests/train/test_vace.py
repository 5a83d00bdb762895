"""Wan VACE: its control stream reads what the pipeline makes of nothing, of a first frame, of control clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_files import write_captioned, write_video
from growths import grow
from PIL import Image
from tiny_from_images import tiny
from tiny_runs import differing, record_of, settings
from tiny_vace import vace

from modelgrow.pipelines.inputs import read_video
from modelgrow.surgery import TrainError
from modelgrow.train.data.encode import to_pixels
from modelgrow.train.families import wan_vace
from modelgrow.train.families.family import preview_arguments
from modelgrow.train.objectives import RectifiedFlow
from modelgrow.train.objectives.one_side import OneSide
from modelgrow.train.objectives.told_flow import ToldFlow
from modelgrow.train.run import train

SIZE = {"num_frames": 5, "height": 32, "width": 48}
PROMPT = "a red circle moves right"


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return vace()


def recorded_call(pipeline: Any, **given: Any) -> tuple[dict[str, Any], torch.Tensor]:
    calls: list[tuple[dict[str, Any], torch.Tensor]] = []
    handle = pipeline.transformer.register_forward_hook(
        lambda _module, _args, kwargs, output: calls.append((kwargs, output[0])), with_kwargs=True
    )
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "guidance_scale": 1.0, "generator": generator, "output_type": "latent"}
    pipeline(prompt=PROMPT, **SIZE, **options, **given)
    handle.remove()
    return calls[0]


@pytest.mark.parametrize("given", [False, True])
def test_predict_is_the_pipelines_call(given: bool, pipeline: Any) -> None:
    shape = (SIZE["num_frames"], SIZE["height"], SIZE["width"], 3)
    frames = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    control: dict[str, Any] = {}
    if given:  # gray is 0 in [-1, 1] here, where a picture can only come near it
        still = torch.zeros(5, 3, 32, 48)
        still[0] = torch.tensor(frames[0]).permute(2, 0, 1) / 127.5 - 1
        mask = torch.ones_like(still)
        mask[0] = 0
        control = {"video": [(still + 1) / 2], "mask": [mask]}
    kwargs, expected = recorded_call(pipeline, **control)
    pixels = torch.tensor(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1
    with torch.no_grad():
        text = {**wan_vace.encode_text(pipeline, [PROMPT]), **wan_vace.encode_conditions(pipeline, pixels, [None], {})}
        told = torch.stack([kwargs["timestep"], torch.full((1,), float(given))], dim=1)
        found, other = (
            wan_vace.predict(pipeline, pipeline.transformer, kwargs["hidden_states"], timesteps, text)
            for timesteps in (told, told * torch.tensor([1.0, 0.0]) + torch.tensor([0.0, float(not given)]))
        )
        plain = wan_vace.predict(pipeline, pipeline.transformer, kwargs["hidden_states"], kwargs["timestep"], text)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (other - expected).abs().max() > 1e-3
    assert torch.equal(plain, other if given else found)


def pictures(frames: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in frames]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_control_clips_are_read_as_the_pipeline_reads_them(given: bool, masked: bool, pipeline: Any) -> None:
    """With `given`, the first frame is the clip's own, and black in the mask."""
    rng = np.random.default_rng(0)
    shape = (SIZE["num_frames"], SIZE["height"], SIZE["width"], 3)
    clip, control = (rng.integers(256, size=shape, dtype=np.uint8) for _ in range(2))
    # A coded mask is not only black and white: what is kept is decided at the middle, what the model reads is not.
    levels = rng.integers(256, size=(SIZE["num_frames"], 4, 6, 1), dtype=np.uint8)
    mask = levels.repeat(8, axis=1).repeat(8, axis=2).repeat(3, axis=3)
    asked, asked_mask = control.copy(), mask.copy() if masked else np.full(shape, 255, dtype=np.uint8)
    if given:
        asked[0], asked_mask[0] = clip[0], 0
    shown = {"video": pictures(asked), **({"mask": pictures(asked_mask)} if masked or given else {})}
    kwargs, expected = recorded_call(pipeline, **shown)
    clips = {"control_video": control, **({"mask_video": mask} if masked else {})}
    controls = {name: to_pixels(frames)[None] for name, frames in clips.items()}
    with torch.no_grad():
        text = wan_vace.encode_text(pipeline, [PROMPT])
        read = wan_vace.encode_conditions(pipeline, to_pixels(clip)[None], [None], controls)
        told = torch.stack([kwargs["timestep"], torch.full((1,), float(given))], dim=1)
        noisy = kwargs["hidden_states"]
        found = wan_vace.predict(pipeline, pipeline.transformer, noisy, told, {**text, **read})
        plain = wan_vace.encode_conditions(pipeline, to_pixels(clip)[None], [None], {})
        other = wan_vace.predict(pipeline, pipeline.transformer, noisy, told, {**text, **plain})
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (other - expected).abs().max() > 1e-3, "without control clips it must differ"
    arguments = preview_arguments(wan_vace, pipeline, clips)
    assert [np.asarray(frame).tolist() for frame in arguments["video"]] == control.tolist()
    assert set(arguments) == ({"video", "mask"} if masked else {"video"})


def test_a_mask_by_itself_keeps_nothing(pipeline: Any) -> None:
    clip = torch.zeros(1, 3, 5, 32, 48)
    with pytest.raises(TrainError, match=r"the clips have mask_video and no control_video, of which a mask keeps"):
        wan_vace.encode_conditions(pipeline, clip, [None], {"mask_video": clip})


def test_the_objective_says_which_samples_have_their_first_frame(pipeline: Any) -> None:
    plain = wan_vace.objective(pipeline, settings(Path("m"), Path("o")))
    assert plain == RectifiedFlow(shift=3.0)
    objective = wan_vace.objective(pipeline, settings(Path("m"), Path("o"), first_frame=0.3))
    assert objective == ToldFlow(flow=RectifiedFlow(shift=3.0), share=0.3)
    levels = objective.draw(4000, torch.Generator().manual_seed(0))
    told = objective.timesteps(levels)
    assert (told[:, 1] == 1).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(told[:, 1] == 1, levels < 0)
    assert torch.equal(told[:, 0], 1000 * levels.abs())
    latents, noise = torch.randn(2, 4000, 1, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(objective.noisy(latents, noise, levels), plain.noisy(latents, noise, levels.abs()))
    assert torch.equal(objective.target(latents, noise, levels), noise - latents)


def test_two_transformers_have_their_sides_here_too() -> None:
    """As in Wan 2.2's VACE."""
    chosen = settings(Path("m"), Path("o"), first_frame=1.0, component="transformer")
    found = wan_vace.objective(tiny("wan-2.2"), chosen)
    assert found == ToldFlow(flow=OneSide(shift=5.0, low=0.9), share=1.0)


def grown_from(pipeline: Any, folder: Path) -> Path:
    pipeline.save_pretrained(folder / "base")
    return grow(folder / "base", folder / "grown", "suffix", blocks=1)


def test_a_run_trains_what_is_new(pipeline: Any, tmp_path: Path) -> None:
    grown = grown_from(pipeline, tmp_path)
    changes = {"data": "shapes:1:2", "steps": 2, "batch_size": 1, "first_frame": 0.5, **SIZE}
    result = train(settings(grown, tmp_path / "run", **changes))
    record, changed = record_of(result.model), differing(grown, result.model)
    assert changed
    assert changed <= set(record.new)


def test_a_run_with_control_clips_shows_what_it_makes_of_them(pipeline: Any, tmp_path: Path) -> None:
    grown = grown_from(pipeline, tmp_path)
    others = {"num_inference_steps": 2, "num_frames": 9, "height": 64, "width": 64}
    (grown / "generation.json").write_text(json.dumps(others))
    data = tmp_path / "data"
    for name in ("a", "b", "c"):
        write_captioned(data / f"{name}.mp4", name)
    for name in ("a.control_video.mp4", "b.control_video.webm", "c.pose_video.mp4"):
        write_video(data / name, num_frames=6)
    changes = {
        "data": str(data),
        "steps": 2,
        "batch_size": 2,
        "first_frame": 0.5,
        "previews": (PROMPT,),
        "preview_every": 2,
        **dict.fromkeys(SIZE),
    }
    said: list[str] = []
    result = train(settings(grown, tmp_path / "run", **changes), announce=said.append)
    assert result.trained_parameters
    assert "(frames x height x width), with control_video |" in (result.model / "README.md").read_text()
    report = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (report["clips"], report["num_frames"]["most"]) == (2, 6)
    assert report["refused"] == [{"name": "c.mp4", "reason": "has no control_video, and others have"}]
    assert report["controls"] == [
        {"name": "control_video", "clips": 2, "read": True},
        {"name": "pose_video", "clips": 1, "read": False},
    ]
    assert "control_video lies beside 2 clips, and is read" in said
    assert "pose_video lies beside 1 clip, and is not read by this model" in said
    folder = tmp_path / "run" / "previews"
    assert {path.name for path in folder.iterdir()} >= {"control_video.mp4", "step-00000002-0.mp4"}
    assert report["buckets"] == [{"num_frames": 5, "height": 32, "width": 40, "clips": 2}]
    shown = read_video(folder / "step-00000002-0.mp4")
    assert (len(shown), shown[0].size) == (5, (320, 256)), "as long and as large as the control clip, enlarged"
