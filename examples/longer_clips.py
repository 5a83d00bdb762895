"""What each method of `grow extend-frames` makes of the foundation before any training: pictures and numbers.

    python -m modelgrow.examples.longer_clips FOLDER

It was trained on 17 frames. Each longer clip is cut into windows of 17, and each window is read back by the small
world's reader: has the object the color and the shape of the prompt, and does it move where the prompt says?
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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
SHOWN = 9
"""Frames of a clip in the picture, at equal distances."""
_TEXT = 18


def read_windows(frames: np.ndarray, scene: object) -> list[tuple[float, float, float]]:
    """Of each window of a clip (T, H, W, 3): whether color, shape and motion are the scene's, 0 or 1."""
    starts = [*range(0, len(frames) - TRAINED, TRAINED - 1), len(frames) - TRAINED]
    scores = [score(read_clip(frames[start : start + TRAINED]), scene) for start in starts]  # type: ignore[arg-type]
    return [(found.colors, found.shapes, found.motions) for found in scores]


def measure(folder: Path, prompts: int) -> Iterator[dict[str, object]]:
    """A row for each length and method; sheets and extended models go to `folder`."""
    scenes = make_prompts(prompts, 1, SEED)
    for length in LENGTHS:
        clips: dict[str, np.ndarray] = {}
        for method in METHODS:
            job = prepare_extend(open_source(str(foundation_path())), ExtendOptions(to=length, method=method))
            pipeline = load_pipeline(execute(job, folder / f"{method}-{length}", overwrite=True), device="cpu")
            windows = []
            for number, scene in enumerate(scenes):
                clip = generate(pipeline, GenerateOptions(prompt=short_caption(scene), seed=number)).frames
                clips.setdefault(method, clip)
                windows += read_windows(clip, scene)
            right = np.mean(windows, axis=0).round(2).tolist()
            yield {"length": length, "method": method, "windows": len(windows), "color, shape, motion": right}
        draw(clips, short_caption(scenes[0])).quantize(256).save(folder / f"frames-{length}.png", optimize=True)


def draw(clips: Mapping[str, np.ndarray], prompt: str) -> Image.Image:
    """A row for each method: some frames of its clip, with their numbers above."""
    count, height, width, _ = next(iter(clips.values())).shape
    shown = np.linspace(0, count - 1, SHOWN).round().astype(int)
    size = (SHOWN * (width + 2), _TEXT + (height + 2 * _TEXT) * len(clips))
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    pen.text((2, 1), f"{count} frames: {prompt}", fill="black", font=font)
    for row, (method, frames) in enumerate(clips.items()):
        top = _TEXT + row * (height + 2 * _TEXT)
        pen.text((2, top), method, fill="black", font=font)
        for column, number in enumerate(shown):
            left = column * (width + 2)
            pen.text((left + 2, top + _TEXT), str(number), fill="gray", font=font)
            sheet.paste(Image.fromarray(frames[number]), (left, top + 2 * _TEXT))
    return sheet


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
