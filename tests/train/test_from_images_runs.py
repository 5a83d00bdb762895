"""Runs of models that read a picture, from a grown pipeline on disk to a trained one and its previews."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from growths import grow
from PIL import Image
from tiny_from_images import BUILDERS, SIZES, tiny
from tiny_runs import check_only_new_moved, data, settings
from tiny_svd import save_tiny_svd

from modelgrow.surgery import GenerateError, TrainError, open_checkpoint
from modelgrow.train.data.open import open_clips
from modelgrow.train.run import train

# diffusers' schedulers with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHOWN = ("wan-2.1", "wan-flf2v", "cogvideox")
"""Those whose runs make previews here."""
CLIPS = "shapes:1:2"


def save_grown(base: Path, output: Path, mode: str = "suffix") -> Path:
    grow(base, output, mode, blocks=1)
    steps = {"num_inference_steps": 2}
    (output / "generation.json").write_text(json.dumps(steps))
    return output


def grown(name: str, folder: Path) -> Path:
    tiny(name).save_pretrained(folder / "base")
    return save_grown(folder / "base", folder / "grown")


def sizes(name: str) -> dict[str, Any]:
    return dict(zip(("num_frames", "height", "width"), SIZES[name], strict=True))


def small(name: str, **changes: Any) -> dict[str, Any]:
    return {"data": CLIPS, "steps": 2, "batch_size": 1, **sizes(name), **changes}


@pytest.mark.parametrize("name", list(BUILDERS))
def test_a_run_trains_what_is_new(name: str, tmp_path: Path) -> None:
    model = grown(name, tmp_path)
    shown = {"preview_every": 2, "previews": ("a red circle",), "held_out": 0.5} if name in SHOWN else {}
    result = train(settings(model, tmp_path / "run", **small(name, **shown)))
    check_only_new_moved(model, result)
    assert result.growth is not None
    if shown:
        previews = tmp_path / "run" / "previews"
        assert {path.name for path in previews.iterdir()} >= {"step-00000002-0.mp4", "step-00000002.png"}
        picture = np.asarray(Image.open(previews / "image.png"))
        clips = open_clips(CLIPS, **sizes(name))
        assert any(np.array_equal(picture, clips.read(clip, **sizes(name))[0]) for clip in clips.clips)


def test_the_other_transformer_stays_as_it_is(tmp_path: Path) -> None:
    model = grown("wan-2.2", tmp_path)
    result = train(settings(model, tmp_path / "run", **small("wan-2.2", component="transformer_2")))
    for component, same in (("transformer", True), ("transformer_2", False)):
        before, after = (open_checkpoint(folder / component) for folder in (model, result.model))
        assert all(data(before, name) == data(after, name) for name in before.tensors) == same


def test_a_lora_of_the_second_transformer_loads_into_it(tmp_path: Path) -> None:
    tiny("wan-2.2").save_pretrained(tmp_path / "base")
    changes = small("wan-2.2", component="transformer_2", train="lora", lora_rank=2)
    result = train(settings(tmp_path / "base", tmp_path / "run", **changes))
    pipeline = tiny("wan-2.2")
    pipeline.load_lora_weights(str(result.model), load_into_transformer_2=True)
    first, second = (
        {name for name in part.state_dict() if "lora" in name}
        for part in (pipeline.transformer, pipeline.transformer_2)
    )
    assert second
    assert not first


def test_a_model_that_reads_no_prompts_makes_one_preview(tmp_path: Path) -> None:
    model = save_grown(save_tiny_svd(tmp_path / "base", layers_per_block=2), tmp_path / "grown", "insert")
    picture = tmp_path / "mine.png"
    Image.new("RGB", (40, 40), (10, 200, 30)).save(picture)
    options = {"num_frames": 4, "height": 16, "width": 16, "preview_every": 2, "preview_image": str(picture)}
    train(settings(model, tmp_path / "run", data=CLIPS, steps=2, batch_size=1, **options))
    previews = tmp_path / "run" / "previews"
    assert {path.name for path in previews.glob("*.mp4")} == {"step-00000002-0.mp4"}
    assert Image.open(previews / "image.png").getpixel((0, 0)) == (10, 200, 30)


def test_pictures_that_are_not_there_are_said_at_once(tmp_path: Path) -> None:
    missing = str(tmp_path / "a.png")
    with pytest.raises(GenerateError, match="no such picture"):
        train(settings(tmp_path / "none", tmp_path / "run", preview_every=1, preview_image=missing))
    with pytest.raises(TrainError, match="preview_image without previews: say how often with preview_every"):
        train(settings(tmp_path / "none", tmp_path / "run", preview_image=missing))
    assert not (tmp_path / "run").exists()


def test_a_folder_of_the_wrong_pipeline_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    model = grown("wan-2.2", tmp_path)
    index = model / "model_index.json"
    index.write_text(index.read_text().replace("WanImageToVideoPipeline", "WanPipeline"))
    told: list[str] = []
    with pytest.raises(TrainError, match="write WanImageToVideoPipeline there"):
        train(settings(model, tmp_path / "run", **small("wan-2.2")), tell=told.append)
    assert told == []


def test_learned_positions_have_one_size(tmp_path: Path) -> None:
    model = grown("cogvideox", tmp_path)
    changes = {**small("cogvideox"), "height": 32}
    with pytest.raises(TrainError, match=r"clips of 32 x 64 pixels; the transformer's learned positions .* 48 x 64"):
        train(settings(model, tmp_path / "run", **changes))
