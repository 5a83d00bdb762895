"""What each method of `grow extend-frames` makes of the foundation before any training: pictures and numbers.

    python -m modelgrow.examples.longer_clips FOLDER

It was trained on 17 frames. Each longer clip is cut into windows of 17, and each window is read back by the small
world's reader: has the object the color and the shape of the prompt, and does it move where the prompt says?
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from modelgrow.pipelines.export import Strip, write_sheet
from modelgrow.pipelines.foundation import foundation_path
from modelgrow.pipelines.generate import GenerateOptions, generate
from modelgrow.pipelines.load import load_pipeline
from modelgrow.surgery import execute, open_source
from modelgrow.surgery.clip_default import prepare_extend
from modelgrow.surgery.extend_frames import ExtendOptions
from modelgrow.surgery.positions import METHODS

from .shapes.captions import short_caption
from .shapes.reader import read_clip, score
from .shapes.training.measure import make_prompts

TRAINED = 17
LENGTHS = (32, 128)
SEED = 20260


def read_windows(frames: np.ndarray, scene: object) -> list[tuple[float, float, float]]:
    """Of each window of a clip (T, H, W, 3): whether color, shape and motion are the scene's, 0 or 1."""
    starts = [*range(0, len(frames) - TRAINED, TRAINED - 1), len(frames) - TRAINED]
    scores = [score(read_clip(frames[start : start + TRAINED]), scene) for start in starts]  # type: ignore[arg-type]
    return [(found.colors, found.shapes, found.motions) for found in scores]


def measure(folder: Path, prompts: int) -> Iterator[dict[str, object]]:
    """A row for each length and method; sheets and extended models go to `folder`."""
    scenes = make_prompts(prompts, 1, SEED)
    for length in LENGTHS:
        strips = []
        for method in METHODS:
            job = prepare_extend(open_source(str(foundation_path())), ExtendOptions(to=length, method=method))
            pipeline = load_pipeline(execute(job, folder / f"{method}-{length}", overwrite=True), device="cpu")
            windows, first = [], None
            for number, scene in enumerate(scenes):
                clip = generate(pipeline, GenerateOptions(prompt=short_caption(scene), seed=number)).frames
                first = clip if first is None else first
                windows += read_windows(clip, scene)
            if first is not None:
                strips.append(Strip(title=method, frames=first[:: max(1, length // 12)]))
            right = np.mean(windows, axis=0).round(2).tolist()
            yield {"length": length, "method": method, "windows": len(windows), "color, shape, motion": right}
        caption = f"{length} frames from a model trained on {TRAINED}: {short_caption(scenes[0])}"
        write_sheet(strips, folder / f"frames-{length}.png", caption=caption, settings={"seed": 0})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=8)
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    for row in measure(told.folder, told.prompts):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
