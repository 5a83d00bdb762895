"""Which pipelines start their previews from a picture, and which clip's first frame it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diffusers import (
    CogVideoXImageToVideoPipeline,
    Cosmos2VideoToWorldPipeline,
    StableVideoDiffusionPipeline,
    WanImageToVideoPipeline,
    WanPipeline,
    WanVACEPipeline,
)
from tiny_runs import settings

from modelgrow.pipelines import ExVideoPipeline, OpenSoraPipeline
from modelgrow.train.data.buckets import Bucket
from modelgrow.train.data.open import open_clips
from modelgrow.train.preview_image import needs_image, preview_images

SIZE: dict[str, Any] = {"num_frames": 4, "height": 16, "width": 16}


@pytest.mark.parametrize(
    ("kind", "needed"),
    [
        (WanPipeline, False),
        (WanVACEPipeline, False),
        (OpenSoraPipeline, False),
        (WanImageToVideoPipeline, True),
        (CogVideoXImageToVideoPipeline, True),
        (Cosmos2VideoToWorldPipeline, True),
        (StableVideoDiffusionPipeline, True),
        (ExVideoPipeline, True),
    ],
)
def test_which_pipelines_need_a_picture(kind: Any, needed: bool) -> None:
    assert needs_image(kind.__new__(kind)) == needed


def run_of(tmp_path: Path, *, held_out: tuple[int, ...] = (), **changes: Any) -> Any:
    """As much of a run as previews look at: six clips, some of them held out."""
    clips = open_clips("shapes:1:6", **SIZE)
    rest = tuple(number for number in range(6) if number not in held_out)
    return SimpleNamespace(
        settings=settings(tmp_path / "m", tmp_path / "run", **changes),
        pipeline=StableVideoDiffusionPipeline.__new__(StableVideoDiffusionPipeline),
        clips=clips,
        held_out=(Bucket(**SIZE, clips=held_out),) if held_out else (),
        cache=SimpleNamespace(keys=tuple(clip.key for clip in clips.clips), buckets=(Bucket(**SIZE, clips=rest),)),
    )


def shown(run: Any) -> int:
    """The number of the clip whose first frame is shown."""
    (picture,) = preview_images(run)
    frames = [run.clips.read(clip, **SIZE)[0] for clip in run.clips.clips]
    return next(number for number, frame in enumerate(frames) if np.array_equal(frame, np.asarray(picture)))


def test_a_held_out_clip_comes_first_and_the_seed_chooses(tmp_path: Path) -> None:
    assert {shown(run_of(tmp_path, held_out=(4,), seed=seed)) for seed in range(3)} == {4}
    chosen = [shown(run_of(tmp_path, seed=seed)) for seed in range(8)]
    assert chosen == [shown(run_of(tmp_path, seed=seed)) for seed in range(8)]
    assert len(set(chosen)) > 1
