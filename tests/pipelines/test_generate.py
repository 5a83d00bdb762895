"""The same settings make the same clip; a grown model makes its base's; and what can't be made is refused in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.outputs import BaseOutput
from growths import grow
from PIL import Image

from modelgrow.pipelines import foundation
from modelgrow.pipelines.generate import Generated, GenerateOptions, generate
from modelgrow.pipelines.load import load_pipeline
from modelgrow.surgery import (
    ExpandOptions,
    GenerateError,
    GrowError,
)

PROMPT = "a red circle moves right"
SMALL: dict[str, Any] = {"num_frames": 5, "height": 32, "width": 48, "num_inference_steps": 2}


def make(pipeline: Any, **options: Any) -> Generated:
    return generate(pipeline, GenerateOptions(**{"prompt": PROMPT, **SMALL, **options}))


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline: Path) -> Any:
    return load_pipeline(tiny_pipeline, device="cpu")


@pytest.fixture(scope="module")
def clip(pipeline: Any) -> Generated:
    return make(pipeline)


def test_same_seed_same_clip(pipeline: Any, clip: Generated) -> None:
    assert clip.frames.shape == (5, 32, 48, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.frames.std() > 10
    again = make(pipeline)
    assert np.array_equal(again.frames, clip.frames)
    assert again.settings == clip.settings


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"prompt": "a blue square moves left"},
        {"negative_prompt": "a blue square"},
        {"guidance_scale": 2.0},
        {"num_inference_steps": 3},
    ],
    ids=str,
)
def test_every_option_counts(pipeline: Any, clip: Generated, change: dict[str, Any]) -> None:
    other = make(pipeline, **change)
    assert not np.array_equal(other.frames, clip.frames)
    assert other.settings["frames_sha256"] != clip.settings["frames_sha256"]
    assert {name: other.settings[name] for name in change} == change


def test_settings_make_the_clip_again(pipeline: Any, tiny_pipeline: Path) -> None:
    first = make(pipeline, seed=7, guidance_scale=3.0, negative_prompt="blue", fps=5)
    settings = json.loads(json.dumps(first.settings))
    again = generate(load_pipeline(settings["model"], device="cpu"), GenerateOptions.from_settings(settings))
    assert np.array_equal(again.frames, first.frames)
    assert again.settings == first.settings
    assert settings["model"] == str(tiny_pipeline)
    assert (settings["dtype"], settings["device"]) == ("float32", "cpu")
    assert settings["versions"]["torch"] == torch.__version__


def test_origin_from_the_hub_and_from_nowhere(tiny_pipeline: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--some--tiny-wan" / "snapshots" / "0123abcd"
    shutil.copytree(tiny_pipeline, snapshot)
    settings = make(load_pipeline(snapshot, device="cpu")).settings
    assert (settings["model"], settings["revision"]) == ("some/tiny-wan", "0123abcd")
    settings = generate(ByLength(), GenerateOptions(prompt=PROMPT)).settings
    assert (settings["model"], settings["revision"]) == ("(built in memory)", None)


def test_foundation_is_the_model_none(tiny_pipeline: Path, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(pipeline).settings["model"] == str(tiny_pipeline)
    monkeypatch.setattr(foundation, "_folder", lambda: tiny_pipeline)
    assert make(load_pipeline(None, device="cpu")).settings["model"] is None


def test_number_of_frames_that_can_not_be(pipeline: Any, clip: Generated) -> None:
    trimmed = make(pipeline, num_frames=4)
    assert trimmed.settings["num_frames"] == len(trimmed.frames) == 4
    assert trimmed.settings["notes"] == []
    assert len(clip.frames) == 5
    assert np.array_equal(trimmed.frames, clip.frames[:4])
    assert clip.settings["notes"] == []


def test_progress_and_silence(pipeline: Any, capfd: pytest.CaptureFixture[str]) -> None:
    steps: list[tuple[int, int]] = []
    options = GenerateOptions(prompt=PROMPT, **SMALL)
    generate(pipeline, options, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]
    generate(pipeline, options)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_frames": 0}, "num_frames is 0"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"height": -16}, "height is -16"),
        ({"fps": 0}, "fps is 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"height": 40}, r"WanPipeline can't make this \(num_frames 5, height 40, .*divisible by 16 .* 40 and 48\.$"),
        ({"num_frames": 129}, r"It has positions for 127 frames; 'grow extend-frames --to 129' gives it more$"),
    ],
    ids=str,
)
def test_what_can_not_be_made(pipeline: Any, change: dict[str, Any], words: str) -> None:
    with pytest.raises(GenerateError, match=words):
        make(pipeline, **change)


@pytest.mark.parametrize(
    ("options", "same"),
    [
        (ExpandOptions(mode="suffix", blocks=2), True),
        (ExpandOptions(mode="insert"), True),
        (ExpandOptions(mode="suffix", blocks=2, init="copy"), False),
    ],
    ids=["suffix", "insert", "control"],
)
def test_grown_pipeline(
    tiny_pipeline: Path, tmp_path: Path, clip: Generated, options: ExpandOptions, *, same: bool
) -> None:
    grown: Any = load_pipeline(grow(tiny_pipeline, tmp_path / "grown", options), device="cpu")
    assert len(grown.transformer.blocks) == 4
    made = make(grown)
    assert np.array_equal(made.frames, clip.frames) is same
    assert (made.settings["frames_sha256"] == clip.settings["frames_sha256"]) is same


def with_generation(tiny_pipeline: Path, folder: Path, values: dict[str, Any]) -> Any:
    shutil.copytree(tiny_pipeline, folder)
    (folder / "generation.json").write_text(json.dumps(values))
    return load_pipeline(folder, device="cpu")


def test_generation_json_comes_before_defaults_and_after_options(tiny_pipeline: Path, tmp_path: Path) -> None:
    recommended = {**SMALL, "guidance_scale": 2.5, "fps": 6, "max_sequence_length": 24}
    pipeline = with_generation(tiny_pipeline, tmp_path / "model", recommended)
    by_file = generate(pipeline, GenerateOptions(prompt=PROMPT))
    assert by_file.frames.shape == (5, 32, 48, 3)
    assert by_file.fps == 6
    assert {name: by_file.settings[name] for name in recommended} == recommended
    by_option = generate(pipeline, GenerateOptions(prompt=PROMPT, num_frames=3, guidance_scale=4.0, fps=9))
    assert by_option.frames.shape == (3, 32, 48, 3)
    assert by_option.fps == by_option.settings["fps"] == 9
    assert by_option.settings["guidance_scale"] == 4.0
    by_default = generate(load_pipeline(tiny_pipeline, device="cpu"), GenerateOptions(prompt=PROMPT, **SMALL))
    assert by_default.settings["guidance_scale"] == 5.0
    assert by_default.fps == 16
    assert not np.array_equal(by_default.frames, by_file.frames)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 20}, "'steps' can't be set there"),
        ({"latents": 1}, "'latents' can't be set there"),
        ({"num_frames": "17"}, "num_frames is '17'"),
        ({"num_frames": True}, "num_frames is True"),
        ({"guidance_scale": False}, "guidance_scale is False"),
        ({"height": [64]}, r"height is \[64\]"),
    ],
    ids=str,
)
def test_generation_json_with_faults(tiny_pipeline: Path, tmp_path: Path, values: dict[str, Any], words: str) -> None:
    pipeline = with_generation(tiny_pipeline, tmp_path / "model", values)
    with pytest.raises(GrowError, match=rf"generation\.json.*{words}|{words}.*generation\.json"):
        make(pipeline)


class Output(BaseOutput):
    frames: Any


RAMP = np.linspace(0, 1, 2 * 3 * 4 * 5 * 3, dtype=np.float32).reshape(2, 3, 4, 5, 3)
"""Two clips of three frames of 4 x 5."""
AS_BYTES = (RAMP[0] * 255).round().astype(np.uint8)


class Recorder(DiffusionPipeline):
    """A pipeline without components, which returns the frames it was given and keeps what it was called with."""

    given: Any = RAMP
    called: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        register: Any = self.register_to_config
        register()

    def giving(self, frames: Any) -> Recorder:
        self.given = frames
        return self

    def finish(self, **called: Any) -> Output:
        self.called = called
        return Output(frames=self.given)


class ByLength(Recorder):
    def __call__(self, prompt: str, video_length: int = 3, generator: Any = None) -> Output:
        return self.finish(prompt=prompt, video_length=video_length, generator=generator)


class ByRate(Recorder):
    def __call__(
        self,
        prompt: str,
        num_frames: int = 3,
        frame_rate: float = 25.0,
        output_type: str = "pil",
        generator: Any = None,
    ) -> Output:
        return self.finish(num_frames=num_frames, frame_rate=frame_rate, output_type=output_type)


class FromImage(Recorder):
    def __call__(self, image: Any, prompt: str, num_frames: int = 3) -> Output:
        return self.finish()


class ToImage(Recorder):
    def __call__(self, prompt: str, height: int = 64) -> Output:
        return self.finish()


def test_only_what_a_pipeline_takes_is_passed() -> None:
    pipeline = ByLength()
    made = generate(pipeline, GenerateOptions(prompt=PROMPT, num_frames=3, seed=5))
    assert pipeline.called["video_length"] == 3
    assert pipeline.called["generator"].initial_seed() == 5
    assert made.settings["guidance_scale"] is None
    assert made.fps == 16
    with pytest.raises(GenerateError, match="ByLength takes no guidance_scale"):
        generate(pipeline, GenerateOptions(prompt=PROMPT, guidance_scale=3.0))


def test_frame_rate_that_the_model_is_told() -> None:
    pipeline = ByRate()
    assert generate(pipeline, GenerateOptions(prompt=PROMPT)).fps == 25
    assert pipeline.called == {"num_frames": 3, "frame_rate": 25.0, "output_type": "np"}
    assert generate(pipeline, GenerateOptions(prompt=PROMPT, fps=10)).fps == 10
    assert pipeline.called["frame_rate"] == 10


@pytest.mark.parametrize(
    "frames",
    [
        RAMP,
        torch.from_numpy(RAMP).movedim(-1, -3),
        [list(RAMP[0]), list(RAMP[1])],
        [[Image.fromarray(frame) for frame in AS_BYTES]],
    ],
    ids=["np", "pt", "list", "pil"],
)
def test_every_kind_of_output(frames: Any) -> None:
    assert np.array_equal(generate(ByLength().giving(frames), GenerateOptions(prompt=PROMPT)).frames, AS_BYTES)


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        (FromImage(), "FromImage can't run without image; give one with --image"),
        (ToImage(), "ToImage makes no clips: it does not take a prompt, a picture or a clip, and a number of frames"),
        (ByLength().giving(None), "its output has no frames"),
        (ByLength().giving(RAMP[..., 0]), r"output of shape \[3, 4, 5\]"),
        (ByLength().giving(RAMP * np.nan), "not finite numbers"),
    ],
    ids=["needs-image", "makes-images", "no-frames", "no-color", "nan"],
)
def test_what_makes_no_clip_from_a_prompt(pipeline: Any, words: str) -> None:
    with pytest.raises(GenerateError, match=words):
        generate(pipeline, GenerateOptions(prompt=PROMPT))
