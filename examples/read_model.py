"""What a program reads in a model's clips. Made for processes of its own, so it imports torch late."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .shapes.reader import Score

ASPECTS = ("colors", "shapes", "motions", "count", "everything")
"""Of a `Score`; "everything" is all of them right."""
SEED = 2026
"""Of prompts and noise. The demo's settings were chosen with others."""
SHOWN = 1
"""Clips of each kind on the contact sheet."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Of clips of one model."""

    values: np.ndarray
    """Shape (prompts, aspects), 0 to 1."""
    clips: tuple[tuple[str, np.ndarray], ...]
    """The first ones, and what they should show."""


def read_model(folder: Path, objects: int, prompts: int) -> Reading:
    """Let a model draw prompts with so many objects, and read its clips. On one thread."""
    import torch

    from modelgrow.pipelines.load import load_pipeline

    from .shapes.captions import short_caption
    from .shapes.counted import counting
    from .shapes.reader import read_clip, score
    from .shapes.training.measure import generate, generation_settings, make_prompts

    torch.set_num_threads(1)
    pipeline: Any = load_pipeline(folder, device="cpu", dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    options = generation_settings(folder)
    scenes = make_prompts(prompts, objects, SEED)
    captions = [short_caption(scene) for scene in scenes]
    values: list[list[float]] = []
    shown: list[tuple[str, np.ndarray]] = []
    with counting(pipeline.transformer):
        for caption, scene, clip in zip(
            captions, scenes, generate(pipeline, captions, seed=SEED, **options), strict=True
        ):
            values.append(_row(score(read_clip(clip), scene)))
            if len(shown) < SHOWN:
                shown.append((caption, clip))
    return Reading(values=np.array(values), clips=tuple(shown))


def _row(read: Score) -> list[float]:
    values = [float(getattr(read, aspect)) for aspect in ASPECTS[:-1]]
    return [*values, float(min(values) == 1)]
