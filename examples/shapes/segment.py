"""Pixels to colors: which background, and which pixels belong to which of the world's colors.

Everything is measured from the background. A pixel on an object's soft edge lies on the straight
line from the background to the object's color, so it is read as a part of that color and never
as another color that happens to look like the mixture.

Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .scene import BACKGROUNDS, COLORS

COLOR_NAMES = tuple(COLORS)
NOBODY = -1
"""The label of a pixel that no color owns."""

_PALETTE = np.array(list(COLORS.values()), dtype=np.float32)
_GROUNDS = np.array(list(BACKGROUNDS.values()), dtype=np.float32)
_LEAST_COVERAGE = 0.4
_MOST_COVERAGE = 1.15
_TOLERANCE = 70.0  # how far a pixel may lie from the line between background and color, of 255
_WORKING_SIDE = 48
_SAMPLE = 8_000  # of the pixels, for medians


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """A clip as differences from its background.

    `difference`: shape (T, H, W, 3), float32, pixel minus background. `labels`: shape (T, H, W),
    int8, an index into `COLOR_NAMES` or `NOBODY`. `noise`: standard deviation of a pixel's values, of 255.
    """

    background: str
    noise: float
    difference: np.ndarray
    labels: np.ndarray

    @property
    def pixels(self) -> int:
        """Pixels per unit of length: the shorter side."""
        return int(min(self.labels.shape[1:]))

    def coverage(self, color: int) -> np.ndarray:
        """How much of each pixel a color covers, by projection. Shape (T, H, W), float32, about 0 to 1.

        Linear and not clipped, so that noise averages out over frames.
        """
        line = self.line(color)
        cover: np.ndarray = self.difference @ (line / (line @ line))
        return cover

    def coverage_noise(self, color: int) -> float:
        """Standard deviation of `coverage` from noise alone."""
        return self.noise / float(np.linalg.norm(self.line(color)))

    def line(self, color: int) -> np.ndarray:
        """From the background's color to an object's color. Shape (3,)."""
        line: np.ndarray = _PALETTE[color] - np.asarray(BACKGROUNDS[self.background], dtype=np.float32)
        return line


def segment(frames: np.ndarray) -> Segmentation:
    """Find the background and give each pixel to a color. `frames`: shape (T, H, W, 3), uint8."""
    small = _reduce(frames)
    background, color = find_background(small)
    # The palette's own background is subtracted from the palette, the measured one from the pixels:
    # a tint over the whole clip cancels.
    difference = small - color
    lines = _PALETTE - np.asarray(BACKGROUNDS[background], dtype=np.float32)
    return Segmentation(
        background=background, noise=_noise(small), difference=difference, labels=_label(difference, lines)
    )


def find_background(frames: np.ndarray) -> tuple[str, np.ndarray]:
    """The background's name and its color in this clip, shape (3,), float32. `frames`: shape (T, H, W, 3)."""
    pixels = frames.reshape(-1, 3)
    pixels = _sample(pixels).astype(np.float32)
    to_grounds = _squared_distances(pixels, _GROUNDS)
    nearest = to_grounds.argmin(axis=1)
    nearest[to_grounds.min(axis=1) > _squared_distances(pixels, _PALETTE).min(axis=1)] = NOBODY
    votes = np.bincount(nearest[nearest != NOBODY], minlength=len(_GROUNDS))
    near = pixels[nearest == votes.argmax()] if votes.any() else pixels
    color: np.ndarray = np.median(near, axis=0)
    # Noise scatters the votes of two dark backgrounds; the median of the winner's neighborhood does not.
    around = pixels[((pixels - color) ** 2).sum(axis=1) < _TOLERANCE**2]
    color = np.median(around if len(around) else near, axis=0)
    name = list(BACKGROUNDS)[int(((_GROUNDS - color) ** 2).sum(axis=1).argmin())]
    return name, color.astype(np.float32)


def _reduce(frames: np.ndarray) -> np.ndarray:
    """Average large frames over blocks, to about 64 pixels: less to read and less noise. Float32."""
    num_frames, height, width, _ = frames.shape
    shared = int(np.gcd(height, width))
    block = max(n for n in range(1, max(1, min(height, width) // _WORKING_SIDE) + 1) if shared % n == 0)
    if block == 1:
        return frames.astype(np.float32)
    blocks = frames.reshape(num_frames, height // block, block, width // block, block, 3)
    reduced: np.ndarray = blocks.mean(axis=(2, 4), dtype=np.float32)
    return reduced


def _noise(frames: np.ndarray) -> float:
    """From neighbors' differences: flat areas have none but the noise."""
    steps = np.abs(frames[:, ::2, 1:] - frames[:, ::2, :-1]).ravel()
    return float(np.median(_sample(steps)) * 1.4826 / np.sqrt(2))


def _label(difference: np.ndarray, lines: np.ndarray) -> np.ndarray:
    strength = np.einsum("...c,...c->...", difference, difference)
    squares = (lines**2).sum(axis=1)
    labels = np.full(strength.shape, NOBODY, dtype=np.int8)
    strong = strength > (_LEAST_COVERAGE**2) * squares.min()
    along = difference[strong] @ lines.T
    cover = np.clip(along / squares, 0.0, _MOST_COVERAGE)
    residual = strength[strong][:, None] + cover * (cover * squares - 2 * along)
    best = residual.argmin(axis=1)
    rows = np.arange(len(best))
    good = (residual[rows, best] < _TOLERANCE**2) & (cover[rows, best] > _LEAST_COVERAGE)
    labels[strong] = np.where(good, best, NOBODY)
    return labels


def _sample(values: np.ndarray) -> np.ndarray:
    step = len(values) // _SAMPLE | 1  # odd, so that it does not keep to a few columns
    return values[::step]


def _squared_distances(pixels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Shape (pixels, colors)."""
    distances: np.ndarray = (pixels**2).sum(axis=1)[:, None] - 2 * pixels @ colors.T + (colors**2).sum(axis=1)
    return distances
