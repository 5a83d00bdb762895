"""From a clip's pixels alone back to what it shows, and how well that fits a scene.

Made for clean clips and for those of a small generative model: soft edges, colors a little off,
blobs, or nothing at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from .scene import MOTIONS, SPEED, Object, Scene
from .segment import COLOR_NAMES, NOBODY, Segmentation, segment
from .templates import match, picture
from .tracks import Track, find_tracks, fit_line, refine, window

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEAST_CONFIDENCE = 0.7


@dataclass(frozen=True, kw_only=True)
class SeenObject:
    """What was read of one object; the words are those of `scene.Object`.

    `x`, `y`: the centre of its box in the first frame, in units of the shorter side. `velocity`: the same
    units per frame. `radius`: half the side of its box. `confidence`: correlation of its picture with the
    best drawing, up to 1; clean clips give more than 0.95.
    """

    color: str
    shape: str
    size: str
    motion: str
    x: float
    y: float
    velocity: tuple[float, float]
    radius: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a clip shows; the largest object comes first."""

    background: str
    objects: tuple[SeenObject, ...]


@dataclass(frozen=True, kw_only=True)
class Score:
    """How much of a scene was read, each from 0 to 1.

    `count` and `background` are right or not. The others are shares of the scene's objects: one that
    was not found counts as wrong, one too many only against `count`.
    """

    count: float
    background: float
    colors: float
    shapes: float
    sizes: float
    motions: float


def read_clip(frames: np.ndarray) -> Reading:
    """Read a clip.

    Args:
        frames: Shape (T, H, W, 3), uint8, values 0 to 255. One frame is enough, but has no motion: "still".
            The shorter side wants 32 pixels or more.

    Returns:
        The background's name and the objects. A clip of noise or of nothing has none.

    Raises:
        ValueError: The array has another shape or type.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(
            f"frames has shape {frames.shape} and type {frames.dtype}; expected (T, H, W, 3) and uint8. "
            "Scale floats to 0..255 and round them first"
        )
    clip = segment(frames)
    tracks = find_tracks(clip)
    objects = [_read_object(clip, track, tracks[:rank], tracks[rank + 1 :]) for rank, track in enumerate(tracks)]
    sure = tuple(obj for obj in objects if obj is not None and obj.confidence >= _LEAST_CONFIDENCE)
    return Reading(background=clip.background, objects=sure)


def motion_name(velocity: Sequence[float] | np.ndarray) -> str:
    """The nearest of the nine motions, for (x, y) per frame; slower than half the usual speed is "still"."""
    moving = [name for name in MOTIONS if name != "still"]
    if np.hypot(*velocity) < SPEED / 2:
        return "still"
    return max(moving, key=lambda name: float(np.dot(velocity, MOTIONS[name])))


def score(reading: Reading, scene: Scene) -> Score:
    """Compare what was read with what should be there.

    Objects are paired by color first, since a scene has each color once; the others so that most agrees.
    """
    pairs = _pair(reading.objects, scene.objects)
    total = max(len(scene.objects), 1)
    return Score(
        count=float(len(reading.objects) == len(scene.objects)),
        background=float(reading.background == scene.background),
        colors=sum(seen.color == true.color for seen, true in pairs) / total,
        shapes=sum(seen.shape == true.shape for seen, true in pairs) / total,
        sizes=sum(seen.size == true.size for seen, true in pairs) / total,
        motions=sum(seen.motion == true.motion for seen, true in pairs) / total,
    )


def _read_object(clip: Segmentation, track: Track, larger: list[Track], smaller: list[Track]) -> SeenObject | None:
    """None if other objects hide it in every frame."""
    others = {other.color for other in (*larger, *smaller)} - {track.color}
    visible = _visible(clip.labels, others)
    for other in larger:
        if other.color == track.color:
            visible &= ~window(other.centroids, visible.shape)
    coverage = clip.coverage(track.color)
    track = refine(track, coverage, visible, noise=clip.coverage_noise(track.color))
    whole = track.whole
    if not whole.any():
        return None
    blob = match(picture(coverage[whole], visible[whole], track.centroids[whole]), clip.pixels)
    extent = (clip.labels.shape[2] / clip.pixels, clip.labels.shape[1] / clip.pixels)
    start, velocity = fit_line(track, extent)
    x, y = (start + blob.offset) % extent
    return SeenObject(
        color=COLOR_NAMES[track.color],
        shape=blob.shape,
        size=blob.size,
        motion=motion_name(velocity),
        x=float(x),
        y=float(y),
        velocity=(float(velocity[0]), float(velocity[1])),
        radius=blob.radius,
        confidence=blob.score,
    )


def _visible(labels: np.ndarray, others: set[int]) -> np.ndarray:
    """False where an object of another color is, and one pixel around it. Shape (T, H, W), bool."""
    in_front = np.isin(np.arange(NOBODY, len(COLOR_NAMES)), list(others))
    hidden = in_front[labels - NOBODY]
    for axis in (1, 2):
        hidden = hidden | np.roll(hidden, 1, axis=axis) | np.roll(hidden, -1, axis=axis)
    visible: np.ndarray = ~hidden
    return visible


def _pair(seen: Sequence[SeenObject], true: Sequence[Object]) -> list[tuple[SeenObject, Object]]:
    pairs = []
    left_seen, left_true = list(seen), []
    for obj in true:
        same = [other for other in left_seen if other.color == obj.color]
        if same:
            best = max(same, key=lambda other: _agreement(other, obj))
            pairs.append((best, obj))
            left_seen.remove(best)
        else:
            left_true.append(obj)
    size = min(len(left_seen), len(left_true))
    options = [
        list(zip(some, wanted, strict=True))
        for some in permutations(left_seen, size)
        for wanted in permutations(left_true, size)
    ]
    return pairs + max(options, key=lambda option: sum(_agreement(a, b) for a, b in option))


def _agreement(seen: SeenObject, true: Object) -> int:
    return sum(getattr(seen, name) == getattr(true, name) for name in ("shape", "size", "motion"))
