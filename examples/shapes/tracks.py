"""Colored pixels to moving things: where each one is in every frame, and how fast it goes.

Positions are (x, y) in units of the shorter side, on the torus. Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .scene import SIZES, SPEED
from .segment import COLOR_NAMES, Segmentation

REACH = 0.27
"""Half the side of the window around an object: a large triangle's tip is 0.24 from its centroid."""

_SMALLEST_AREA = 2 * SIZES["small"] ** 2  # a small triangle
_LEAST_AREA = 0.4 * _SMALLEST_AREA
_LEAST_PRESENCE = 1 / 3  # of the frames
_WHOLE = 0.88  # of its usual area: below that something covers a part of it
_SEARCH = 0.14
_BLOBS_PER_COLOR = 2
_LONGEST_GAP = 8  # frames; even at twice the usual speed it is less than half the world


@dataclass(frozen=True, kw_only=True)
class Track:
    """One thing of one color. `centroids`: shape (T, 2). `areas`: shape (T,), zero where it isn't seen."""

    color: int
    centroids: np.ndarray
    areas: np.ndarray

    @property
    def whole(self) -> np.ndarray:
        """The frames in which all of it is seen, as far as can be told. Shape (T,), bool."""
        whole: np.ndarray = self.areas >= _WHOLE * np.quantile(self.areas, 0.9)
        if whole.mean() < 1 / 3:  # it flickers, or is mostly hidden: the better half must do
            whole = self.areas >= np.quantile(self.areas, 0.5)
        return whole & (self.areas > 0)


def find_tracks(clip: Segmentation) -> list[Track]:
    """All things that are large enough and there long enough, the largest first."""
    tracks = [track for color in range(len(COLOR_NAMES)) for track in _tracks_of_color(clip, color)]
    tracks.sort(key=lambda track: -float(track.areas.sum()))
    kept: list[Track] = []
    for track in tracks:
        if not any(_same_place(track, other, clip) for other in kept):
            kept.append(track)
    return kept


def refine(track: Track, coverage: np.ndarray, visible: np.ndarray, *, noise: float) -> Track:
    """Centroids and areas by coverage instead of by whole pixels.

    Args:
        coverage: Shape (T, H, W), as `Segmentation.coverage`.
        visible: Shape (T, H, W), bool: false where another object is in front.
        noise: Standard deviation of the coverage.
    """
    weights = np.where(visible & (coverage > max(0.25, 2.5 * noise)), np.minimum(coverage, 1.0), 0.0)
    centroids, areas = track.centroids, track.areas
    for _ in range(2):
        centroids, areas = _centroids(weights, centroids)
    return Track(color=track.color, centroids=centroids, areas=areas * (track.areas > 0))


def fit_line(track: Track, extent: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Start and velocity of the steady motion nearest to a track, each shape (2,), per frame.

    With fewer than two frames the velocity is zero.
    """
    times = np.flatnonzero(track.whole).astype(np.float64)
    places = track.centroids[track.whole].astype(np.float64)
    if len(times) < 2:
        return places[0], np.zeros(2)
    velocity = _rough_velocity(times, places, extent)
    middle = len(times) // 2
    anchor = places[middle] - velocity * times[middle]
    rest = _wrap(places - anchor - velocity * times[:, None], extent)
    good = np.ones(len(times), dtype=bool)
    for _ in range(3):
        slope, offset = _least_squares(times[good], rest[good])
        error = np.linalg.norm(rest - offset - slope * times[:, None], axis=1)
        good = error <= 3 * np.median(error) + 1e-3
    return (anchor + offset) % np.array(extent), velocity + slope


def window(centres: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """True within `REACH` of each frame's centre, by rows and columns. Shape (T, H, W), bool."""
    _, height, width = shape
    pixels = min(height, width)
    x = _circular(np.arange(width) + 0.5 - centres[:, :1] * pixels, width)
    y = _circular(np.arange(height) + 0.5 - centres[:, 1:] * pixels, height)
    inside: np.ndarray = (np.abs(y) <= REACH * pixels)[:, :, None] & (np.abs(x) <= REACH * pixels)[:, None, :]
    return inside


def _rough_velocity(times: np.ndarray, places: np.ndarray, extent: tuple[float, float]) -> np.ndarray:
    """Median over pairs of frames: far enough apart not to see jitter, too near to go round the torus."""
    first, second = np.triu_indices(len(times), 1)
    gaps = times[second] - times[first]
    longest = max(gaps[gaps <= _LONGEST_GAP].max(initial=0), gaps.min())
    chosen = (gaps >= longest / 2) & (gaps <= longest)
    steps = _wrap(places[second[chosen]] - places[first[chosen]], extent)
    velocity: np.ndarray = np.median(steps / gaps[chosen, None], axis=0)
    return velocity


def _least_squares(times: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset, each shape (2,)."""
    late = times - times.mean()
    slope = late @ places / max(float(late @ late), 1e-9)
    return slope, places.mean(axis=0) - slope * times.mean()


def _tracks_of_color(clip: Segmentation, color: int) -> Iterator[Track]:
    mine = clip.labels == color
    least = _LEAST_AREA * clip.pixels**2
    for _ in range(_BLOBS_PER_COLOR):
        if mine.sum() < least * _LEAST_PRESENCE * len(mine):
            return
        track = _strongest(mine, color, clip.pixels)
        if (track.areas >= _LEAST_AREA).mean() < _LEAST_PRESENCE:
            return
        yield track
        mine = mine & ~window(track.centroids, mine.shape)


def _strongest(mine: np.ndarray, color: int, pixels: int) -> Track:
    """Follow the place where a color is densest, from the frame where it is densest of all."""
    half = round(_SEARCH * pixels)
    density = _box_sum(_box_sum(mine.astype(np.int32), half, 1), half, 2)
    frames, height, width = mine.shape
    start, row, column = np.unravel_index(density.argmax(), density.shape)
    away = np.abs(np.arange(frames) - start)[:, None, None] * 1.6 * SPEED + 0.08
    x = _circular(np.arange(width) - column, width)[None, None, :] / pixels
    y = _circular(np.arange(height) - row, height)[None, :, None] / pixels
    density *= x**2 + y**2 <= away**2
    peaks = density.reshape(frames, -1).argmax(axis=1)
    rows, columns = np.divmod(peaks, width)
    centroids = np.stack([columns + 0.5, rows + 0.5], axis=1) / pixels
    weights = mine.astype(np.float32)
    for _ in range(2):
        centroids, areas = _centroids(weights, centroids)
    return Track(color=color, centroids=centroids, areas=np.where(areas >= _LEAST_AREA, areas, 0.0))


def _same_place(track: Track, other: Track, clip: Segmentation) -> bool:
    """Two colors read from one thing of a color between them, or a rim around it."""
    both = (track.areas > 0) & (other.areas > 0)
    if track.color == other.color or not both.any():
        return False
    extent = (clip.labels.shape[2] / clip.pixels, clip.labels.shape[1] / clip.pixels)
    gap = np.linalg.norm(_wrap(track.centroids - other.centroids, extent), axis=1)
    return bool((gap[both] < SIZES["small"]).mean() > 0.7)


def _centroids(weights: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centroid and area of what lies in a window around each frame's centre, over the torus' seam too."""
    frames, height, width = weights.shape
    pixels = min(height, width)
    half = min(round(REACH * pixels), (pixels - 1) // 2)
    offsets = np.arange(-half, half + 1)
    corner = np.floor(centres * pixels).astype(np.int64)
    columns = (corner[:, :1] + offsets) % width
    rows = (corner[:, 1:] + offsets) % height
    window = weights[np.arange(frames)[:, None, None], rows[:, :, None], columns[:, None, :]]
    mass = window.sum(axis=(1, 2))
    safe = np.maximum(mass, 1e-6)
    shift = np.stack([window.sum(axis=1) @ offsets, window.sum(axis=2) @ offsets], axis=1) / safe[:, None]
    moved = (corner + 0.5 + shift) / pixels
    extent = np.array([width, height]) / pixels
    return np.where(mass[:, None] > 0, moved, centres) % extent, mass / pixels**2


def _box_sum(values: np.ndarray, half: int, axis: int) -> np.ndarray:
    """Sum over 2 * half + 1 neighbors along an axis of the torus."""
    size = values.shape[axis]
    around = np.arange(-half - 1, size + half) % size
    sums = np.take(values, around, axis=axis).cumsum(axis=axis, dtype=np.int32)
    ahead = np.take(sums, np.arange(2 * half + 1, 2 * half + 1 + size), axis=axis)
    total: np.ndarray = ahead - np.take(sums, np.arange(size), axis=axis)
    return total


def _circular(offset: np.ndarray, side: float) -> np.ndarray:
    return (offset + side / 2) % side - side / 2


def _wrap(offset: np.ndarray, extent: tuple[float, float]) -> np.ndarray:
    side = np.array(extent)
    wrapped: np.ndarray = (offset + side / 2) % side - side / 2
    return wrapped
