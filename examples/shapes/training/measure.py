"""Does the model draw what the prompt says? Generate with the stock pipeline, read the clips back, count.

Prompts go through every colour, shape and motion; prompts and noise come from a seed that training never saw.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanPipeline
from rich.console import Console
from rich.table import Table

from ..captions import short_caption
from ..clips import make_clip
from ..reader import read_clip, score
from ..scene import COLORS, MOTIONS, SHAPES, Object, Scene
from .clips import from_frames, to_unit
from .export import GENERATION_FILE
from .settings import MEASURE_SEED


def generation_settings(folder: Path) -> dict[str, Any]:
    """A model's own settings for a call of its pipeline: all of its generation.json but the file's frame rate."""
    settings: dict[str, Any] = json.loads((folder / GENERATION_FILE).read_text(encoding="utf-8"))
    del settings["fps"]
    return settings


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many prompts, and which share of the objects they ask for was read back right, 0 to 1.

    `count`: clips with exactly as many objects as asked for. `everything`: clips with nothing wrong at all.
    """

    prompts: int
    colors: float
    shapes: float
    directions: float
    count: float
    everything: float


def make_prompts(count: int, num_objects: int, seed: int) -> list[Scene]:
    """Scenes whose short captions are the prompts. Colours differ within a scene, as in training."""
    rng = np.random.default_rng([seed, num_objects])
    endless = _shuffled(rng)
    scenes: list[Scene] = []
    while len(scenes) < count:
        objects: list[Object] = []
        while len(objects) < num_objects:
            color, shape, motion = next(endless)
            if all(color != other.color for other in objects):
                objects.append(Object(shape=shape, color=color, size="large", motion=motion, x=0.5, y=0.5))
        scenes.append(Scene(objects=tuple(objects), background="black"))
    return scenes


def _shuffled(rng: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    """Every (color, shape, motion) once in random order, then all over again."""
    combinations = list(product(COLORS, SHAPES, MOTIONS))
    while True:
        yield from (combinations[index] for index in rng.permutation(len(combinations)))


def generate(
    pipeline: WanPipeline, prompts: Sequence[str], *, seed: int, batch: int = 16, **settings: Any
) -> Iterator[np.ndarray]:
    """One clip per prompt, `(T, H, W, 3)` uint8. Prompt `i` starts from the noise of `seed + i`."""
    for first in range(0, len(prompts), batch):
        texts = list(prompts[first : first + batch])
        generators = [torch.Generator().manual_seed(seed + first + index) for index in range(len(texts))]
        clips = pipeline(prompt=texts, generator=generators, output_type="np", **settings).frames
        yield from np.rint(np.asarray(clips) * 255).astype(np.uint8)


def tally(wanted: Sequence[Scene], clips: Iterator[np.ndarray]) -> Tally:
    """Read every clip and compare it with the scene that its prompt describes."""
    readings = [score(read_clip(frames), scene) for scene, frames in zip(wanted, clips, strict=True)]
    perfect = [read.count * read.colors * read.shapes * read.motions == 1 for read in readings]
    return Tally(
        prompts=len(readings),
        colors=float(np.mean([read.colors for read in readings])),
        shapes=float(np.mean([read.shapes for read in readings])),
        directions=float(np.mean([read.motions for read in readings])),
        count=float(np.mean([read.count for read in readings])),
        everything=float(np.mean(perfect)),
    )


@torch.no_grad()
def reconstructions(pipeline: WanPipeline, clips: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Real clips through the VAE and back: what the reader makes of a perfect transformer."""
    for frames in clips:
        pixels = to_unit(from_frames(frames))[None].to(pipeline.vae.dtype)
        decoded = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mode()).sample
        yield np.rint(pipeline.video_processor.postprocess_video(decoded, output_type="np")[0] * 255).astype(np.uint8)


def measure(model: Path, *, one: int, two: int, real: int, batch: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """Scores of a pipeline folder, as JSON values."""
    settings = json.loads((model / GENERATION_FILE).read_text()) | overrides
    call = {key: value for key, value in settings.items() if key != "fps"}
    pipeline = WanPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    scores = {}
    for name, count, num_objects in (("one object", one, 1), ("two objects", two, 2)):
        if count:
            scenes = make_prompts(count, num_objects, MEASURE_SEED)
            prompts = [short_caption(scene) for scene in scenes]
            clips = generate(pipeline, prompts, seed=MEASURE_SEED, batch=batch, **call)
            scores[name] = asdict(tally(scenes, clips))
    if real:
        drawn = [make_clip(seed=MEASURE_SEED, index=index, num_objects=(1, 2)) for index in range(real)]
        scenes = [clip.scene for clip in drawn]
        decoded = reconstructions(pipeline, [clip.frames for clip in drawn])
        scores["real clips, VAE"] = asdict(tally(scenes, decoded))
    return {"seed": MEASURE_SEED, "settings": settings, "scores": scores}


def show(result: dict[str, Any]) -> Table:
    table = Table(title="Read back from generated clips")
    table.add_column("prompts")
    for column in Tally.__dataclass_fields__:
        table.add_column("how many" if column == "prompts" else column, justify="right")
    for name, values in result["scores"].items():
        cells = [str(values["prompts"])] + [f"{100 * value:.1f} %" for key, value in values.items() if key != "prompts"]
        table.add_row(name, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/foundation/pipeline"))
    parser.add_argument("--one", type=int, default=256, help="prompts of one object")
    parser.add_argument("--two", type=int, default=128, help="prompts of two objects")
    parser.add_argument("--real", type=int, default=64, help="real clips read through the VAE, as a ceiling")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, help="instead of generation.json's")
    parser.add_argument("--guidance", type=float, help="instead of generation.json's")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    args = parser.parse_args()
    asked = {"num_inference_steps": args.steps, "guidance_scale": args.guidance}
    overrides = {key: value for key, value in asked.items() if value is not None}
    result = measure(args.model, one=args.one, two=args.two, real=args.real, batch=args.batch, overrides=overrides)
    Console(width=100).print(show(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
