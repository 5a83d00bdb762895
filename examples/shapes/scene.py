"""What a clip shows: its vocabulary, its objects, and where they are in every frame.

Lengths are in units of the frame's shorter side, x to the right and y downwards. The world is a
torus: what leaves on one side comes back on the other, so a scene can be drawn at any length.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

SHAPES = ("circle", "square", "triangle", "cross")

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (230, 40, 40),
    "green": (40, 185, 70),
    "blue": (45, 95, 245),
    "yellow": (245, 220, 50),
    "purple": (170, 55, 215),
    "cyan": (60, 220, 230),
}

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (14, 14, 16),
    "gray": (122, 122, 122),
    "white": (242, 242, 240),
    "navy": (20, 26, 66),
}

SIZES: dict[str, float] = {"small": 0.11, "large": 0.18}
"""Half the side of the box that an object fits in."""

_D = 0.5**0.5
MOTIONS: dict[str, tuple[float, float]] = {
    "still": (0.0, 0.0),
    "right": (1.0, 0.0),
    "down right": (_D, _D),
    "down": (0.0, 1.0),
    "down left": (-_D, _D),
    "left": (-1.0, 0.0),
    "up left": (-_D, -_D),
    "up": (0.0, -1.0),
    "up right": (_D, -_D),
}
"""Unit vectors; clockwise from the right, after "still"."""

SPEED = 1 / 40
"""Way per frame of everything that moves."""

_TRIES = 400


@dataclass(frozen=True, kw_only=True)
class Object:
    """One coloured shape. `x`, `y` is its centre in the first frame."""

    shape: str
    color: str
    size: str
    motion: str
    x: float
    y: float

    @property
    def radius(self) -> float:
        return SIZES[self.size]

    def path(self, num_frames: int, extent: tuple[float, float]) -> np.ndarray:
        """Centres in every frame, wrapped into the world. Shape (num_frames, 2), as (x, y)."""
        steps = np.arange(num_frames)[:, None] * SPEED
        start = np.array([self.x, self.y])
        centres: np.ndarray = (start + steps * np.array(MOTIONS[self.motion])) % np.array(extent)
        return centres


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Objects of different colours on a plain background. Later objects are drawn over earlier ones."""

    objects: tuple[Object, ...]
    background: str
    aspect: float = 1.0

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height of the world; the shorter is 1."""
        return max(self.aspect, 1.0), max(1 / self.aspect, 1.0)


_NAMES = tuple(SHAPES), tuple(SIZES), tuple(MOTIONS)


def sample_scene(
    rng: np.random.Generator, *, num_objects: int | Sequence[int] = (1, 2, 3), num_frames: int = 17, aspect: float = 1.0
) -> Scene:
    """Draw a scene whose objects do not touch, and stay in the picture where `num_frames` allows it.

    Args:
        rng: Every choice comes from it.
        num_objects: How many, 1 to 3, or the numbers to choose from.
        num_frames: The length for which the objects are kept apart. A long clip in which they cannot
            be kept apart gets the try in which they overlap least.
        aspect: Width over height of the frames.
    """
    count = int(rng.choice(np.atleast_1d(np.asarray(num_objects))))
    colors = [str(c) for c in rng.choice(list(COLORS), size=count, replace=False)]
    background = str(rng.choice(list(BACKGROUNDS)))
    extent = Scene(objects=(), background=background, aspect=aspect).extent
    best: tuple[Object, ...] = ()
    least = num_frames * count**2
    for _ in range(_TRIES):
        objects = tuple(_sample_object(rng, color, num_frames, extent) for color in colors)
        overlap = _overlapping_frames(objects, num_frames, extent)
        if overlap < least:
            best, least = objects, overlap
        if least == 0:
            break
    return Scene(objects=best, background=background, aspect=aspect)


def _sample_object(rng: np.random.Generator, color: str, num_frames: int, extent: tuple[float, float]) -> Object:
    # The same draws as rng.choice's, which would make an array of the names each time.
    shape, size, motion = (names[int(rng.integers(len(names)))] for names in _NAMES)
    radius = SIZES[size]
    start = []
    for step, side in zip(MOTIONS[motion], extent, strict=True):
        way = step * SPEED * (num_frames - 1)
        low, high = radius - min(way, 0), side - radius - max(way, 0)
        start.append(rng.uniform(low, high) if low < high else rng.uniform(0, side))
    return Object(shape=shape, color=color, size=size, motion=motion, x=float(start[0]), y=float(start[1]))


def _overlapping_frames(objects: tuple[Object, ...], num_frames: int, extent: tuple[float, float]) -> int:
    frames = 0
    for a, b in combinations(objects, 2):
        gap = np.abs(a.path(num_frames, extent) - b.path(num_frames, extent))
        gap = np.minimum(gap, np.array(extent) - gap)
        frames += int((gap.max(axis=1) < a.radius + b.radius).sum())
    return frames
