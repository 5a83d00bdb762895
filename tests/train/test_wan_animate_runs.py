"""Runs of a grown Wan Animate on files: clips, and pose and face clips beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from clip_files import write_captioned, write_video
from diffusers import DiffusionPipeline
from growths import grow
from tiny_runs import differing, record_of, settings
from tiny_wan_animate import SIZE, frames_of, pictures_of, wan_animate

from modelgrow.pipelines.load import load_pipeline
from modelgrow.surgery import DataError, TrainError
from modelgrow.train.families import wan_animate as family
from modelgrow.train.loop import Loop
from modelgrow.train.run import make_trunk, train
from modelgrow.train.setup import set_up

# diffusers' schedulers with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT = "a red circle moves right"
CONTROLS = {"pose_video": (32, 48), "face_video": (32, 32)}
"""Height and width."""


def save_grown(folder: Path, mode: str, **config: Any) -> Path:
    wan_animate(**config).save_pretrained(folder / "base")
    grown = grow(folder / "base", folder / "grown", mode, blocks=1)
    (grown / "generation.json").write_text('{"num_inference_steps": 2}')
    return grown


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a face adapter at every block, and so a new one at the new block."""
    return save_grown(tmp_path_factory.mktemp("animate"), "insert", inject_face_latents_blocks=1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two, with what lies beside them."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("one", "two"):
        write_captioned(folder / f"{name}.mp4", PROMPT, num_frames=5)
        for control, (height, width) in CONTROLS.items():
            write_video(folder / f"{name}.{control}.mp4", num_frames=5, height=height, width=width)
    return folder


def small(clips: Path, **changes: Any) -> dict[str, Any]:
    return {"data": str(clips), "batch_size": 2, **SIZE, **changes}


def test_a_run_trains_what_is_new(grown: Path, clips: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    shown = {"preview_every": 30, "previews": (PROMPT,)}
    result = train(
        settings(grown, tmp_path / "run", **small(clips, steps=30, caption_dropout=0.2, **shown)),
        report=lambda progress: losses.append(progress.loss),
    )
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    record = record_of(result.model)
    assert {".".join(name.split(".")[:2]) for name in record.new} == {"blocks.2", "face_adapter.2"}
    assert differing(grown, result.model) == set(record.new)
    assert result.growth is not None
    previews = tmp_path / "run" / "previews"
    assert {path.name for path in previews.iterdir()} >= {"step-00000030-0.mp4", "step-00000030.png", "image.png"}
    assert not torch.equal(clip_of(result.model), clip_of(grown))


def clip_of(folder: Path) -> torch.Tensor:
    """What diffusers makes of a folder."""
    pipeline: Any = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    controls = {"pose_video": frames_of(1), "face_video": frames_of(2, side=16)}
    sides = {side: SIZE[side] for side in ("height", "width")}
    generator = torch.Generator().manual_seed(0)
    options = {"prompt": PROMPT, "num_inference_steps": 2, "generator": generator, "output_type": "pt", **sides}
    arguments = family.preview_arguments(pipeline, controls)
    frames: torch.Tensor = pipeline(pictures_of(frames_of(0))[0], **options, **arguments).frames
    assert frames.shape == (1, 5, 3, 32, 48)
    return frames


def test_step_0_is_the_base_to_the_bit(grown: Path, clips: Path, tmp_path: Path) -> None:
    one = Loop(run=set_up(settings(grown, tmp_path / "grown", **small(clips)), lambda _: None), report=lambda _: None)
    base = settings(grown.parent / "base", tmp_path / "base", train="all", **small(clips))
    two = Loop(run=set_up(base, lambda _: None), report=lambda _: None)
    batch = one.batch(0)
    assert batch.latents.shape == (2, 4, 3, 8, 12)
    assert batch.text[family.FACES].shape == (2, 3, 5, 16, 16)
    with torch.no_grad():
        assert torch.equal(one.predict(batch), two.predict(batch))
        noise = torch.zeros_like(batch.noise)
        assert not torch.equal(one.predict(batch), one.predict(type(batch)(**{**vars(batch), "noise": noise})))


def test_characters_are_replaced_where_the_data_have_backgrounds_and_masks(
    grown: Path, clips: Path, tmp_path: Path
) -> None:
    files = {"background_video": "two.mp4", "mask_video": "two.pose_video.mp4"}
    files |= {control: f"one.{control}.mp4" for control in CONTROLS}
    rows = [{"file_name": "one.mp4", "text": PROMPT, **files}]
    paths = ("file_name", *files)
    rows = [{key: str(clips / value) if key in paths else value for key, value in row.items()} for row in rows]
    data = tmp_path / "metadata.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = {"preview_every": 2, "previews": (PROMPT,)}
    chosen = settings(grown, tmp_path / "run", **small(data, batch_size=1, steps=2, **shown))
    result = train(chosen)
    assert result.changed is not None
    assert result.changed.moved > 0
    assert (tmp_path / "run" / "previews" / "step-00000002-0.mp4").is_file()
    batch = set_up(chosen, lambda _: None).batch(0)
    assert (batch.text[family.GIVEN][:, :4] > 0).any(), "the mask keeps some of the background"
    alone = tmp_path / "alone.jsonl"
    alone.write_text("".join(json.dumps({**row, "mask_video": None}) + "\n" for row in rows))
    with pytest.raises(TrainError, match="the clips have background_video and no mask_video"):
        train(settings(grown, tmp_path / "other", **small(alone, batch_size=1)))


def test_clips_without_poses_are_refused(grown: Path, clips: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_captioned(tmp_path / "clips" / f"{name}.mp4", PROMPT, num_frames=5)
    how = "has no face_video, which this model reads; name it in a column face_video of the list, or lay it beside"
    with pytest.raises(DataError, match=f"one.mp4: {how} X.mp4 as X.face_video.mp4"):
        train(settings(grown, tmp_path / "run", **small(tmp_path / "clips")))
    with pytest.raises(DataError, match="no control clips, and this model reads face_video and pose_video"):
        train(settings(grown, tmp_path / "drawn", **small(clips, data="shapes:1:2")))


def test_the_cached_trunk_is_the_trunk(clips: Path, tmp_path: Path) -> None:
    """And faces are added where they were, though it does not run."""
    grown = save_grown(tmp_path, "suffix")
    chosen = settings(grown, tmp_path / "run", **small(clips, cache_trunk=1))
    loop = Loop(run=set_up(chosen, lambda _: None), report=lambda _: None)
    loop.trunk = make_trunk(loop, lambda _: None)
    with torch.no_grad():
        fast = loop.loss(loop.batch(0), 0)
        exact = loop.error(loop.trunk.sample(loop.batch(0), 0)[0])
    torch.testing.assert_close(fast, exact, rtol=1e-2, atol=0)


def test_a_lora_and_everything_train_too(grown: Path, clips: Path, tmp_path: Path) -> None:
    for what in ("lora", "all"):
        result = train(settings(grown, tmp_path / what, **small(clips, steps=2, train=what)))
        assert result.changed is not None
        assert result.changed.moved > 0, what
    assert load_pipeline(tmp_path / "all" / "model", device="cpu")
