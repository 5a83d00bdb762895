"""Is a prompt followed in other words, at length, and with more objects? Generate, read the clips back, count.

    python -m modelgrow.examples.shapes.training.follow --model runs/slot/model

Scenes, wordings and noise come from a seed that no training has seen.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from modelgrow.pipelines.load import load_pipeline

from ..captions import detailed_caption, short_caption
from ..counted import KEPT_OF_ANY, counting
from ..paraphrases import long_paraphrase, paraphrase
from ..reader import read_clip, score
from ..scene import Scene, sample_scene
from .measure import generate, generation_settings
from .settings import MEASURE_SEED

Say = Callable[[Scene, np.random.Generator], str]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Prompts of one kind. `says`: what of a scene they hold, by the names of `Score`."""

    objects: int
    say: Say
    says: tuple[str, ...] = ("colors", "shapes", "motions", "count")


_ALL = ("colors", "shapes", "motions", "count", "sizes", "background")
KINDS = {
    "1 object, the base's words": Kind(objects=1, say=lambda scene, rng: short_caption(scene)),
    "1 object, synonyms": Kind(objects=1, say=paraphrase),
    "1 object, held-out synonyms": Kind(objects=1, say=lambda scene, rng: paraphrase(scene, rng, held_out=True)),
    "2 objects, the base's words": Kind(objects=2, say=lambda scene, rng: short_caption(scene)),
    "2 objects, synonyms": Kind(objects=2, say=paraphrase),
    "1 object, long": Kind(objects=1, say=detailed_caption, says=_ALL),
    "2 objects, long": Kind(objects=2, say=detailed_caption, says=_ALL),
    "3 objects, long": Kind(objects=3, say=detailed_caption, says=_ALL),
    "2 objects, long synonyms": Kind(objects=2, say=long_paraphrase, says=_ALL),
}


SENTENCE, MEANING = "a crimson disc drifts west", ("red", "circle", "left")
"""In no training caption, though its words are in some."""
SENTENCE_COUNT = 16


def prompts_of(kind: Kind, count: int, seed: int) -> list[tuple[Scene, str]]:
    """Scenes and what is said of them."""
    made = []
    for index in range(count):
        rng = np.random.default_rng([seed, kind.objects, index])
        scene = sample_scene(rng, num_objects=kind.objects)
        made.append((scene, kind.say(scene, rng)))
    return made


def follow(pipeline: Any, kind: Kind, *, count: int, seed: int, batch: int, **settings: Any) -> dict[str, float]:
    """Means over the prompts, 0 to 1. "right": clips in which nothing that was said is wrong."""
    asked = prompts_of(kind, count, seed)
    clips = generate(pipeline, [prompt for _, prompt in asked], seed=seed, batch=batch, **settings)
    scores = [asdict(score(read_clip(clip), scene)) for clip, (scene, _) in zip(clips, asked, strict=True)]
    means = {name: float(np.mean([got[name] for got in scores])) for name in kind.says}
    return {**means, "right": float(np.mean([all(got[name] == 1 for name in kind.says) for got in scores]))}


def follow_sentence(pipeline: Any, *, count: int, seed: int, batch: int, **settings: Any) -> float:
    """Share of clips of `SENTENCE` that show its meaning and nothing else, from `count` noises."""
    clips = generate(pipeline, [SENTENCE] * count, seed=seed, batch=batch, **settings)
    shown = ([(obj.color, obj.shape, obj.motion) for obj in read_clip(clip).objects] for clip in clips)
    return float(np.mean([objects == [MEANING] for objects in shown]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: the foundation")
    parser.add_argument("--count", type=int, default=96, help="prompts of each kind")
    parser.add_argument("--seed", type=int, default=MEASURE_SEED)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only these; may be repeated")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    args = parser.parse_args()
    pipeline = load_pipeline(args.model, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    settings = generation_settings(Path(str(pipeline.name_or_path)))
    results = {}
    table = Table("prompts", *_ALL, "right")
    for name in args.kind or KINDS:
        with counting(pipeline.transformer, KEPT_OF_ANY):  # the same clips, sooner
            got = follow(pipeline, KINDS[name], count=args.count, seed=args.seed, batch=args.batch, **settings)
        results[name] = got
        table.add_row(name, *(f"{100 * got[column]:.1f}" if column in got else "" for column in (*_ALL, "right")))
        if args.json:
            whole = {"seed": args.seed, "prompts": args.count, "settings": settings, "scores": results}
            args.json.write_text(json.dumps(whole, indent=2) + "\n")
    Console(width=120).print(table)
    with counting(pipeline.transformer, KEPT_OF_ANY):
        share = follow_sentence(pipeline, count=SENTENCE_COUNT, seed=args.seed, batch=args.batch, **settings)
    print(f"{SENTENCE!r}: right in {share * SENTENCE_COUNT:.0f} of {SENTENCE_COUNT} clips")


if __name__ == "__main__":
    main()
