"""Captioned clips by number: nothing is stored, every clip can be drawn again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .captions import detailed_caption, short_caption
from .render import render
from .scene import Scene, sample_scene

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames with what they show. `frames`: shape (T, H, W, 3), uint8."""

    frames: np.ndarray
    scene: Scene
    caption: str
    detailed_caption: str


def make_clip(
    *,
    seed: int,
    index: int,
    num_objects: int | Sequence[int] = (1, 2, 3),
    num_frames: int = 17,
    height: int = 64,
    width: int = 64,
) -> Clip:
    """Clip number `index` of the endless series `seed`. The same arguments give the same clip."""
    rng = np.random.default_rng([seed, index])
    scene = sample_scene(rng, num_objects=num_objects, num_frames=num_frames, aspect=width / height)
    return Clip(
        frames=render(scene, num_frames=num_frames, height=height, width=width),
        scene=scene,
        caption=short_caption(scene),
        detailed_caption=detailed_caption(scene, rng),
    )
