"""A blob to its shape and size: compare its average picture with drawn ones.

Pictures are drawn on one fixed grid around the centroid, in units of the shorter side, whatever
the clip's resolution. The drawn ones come in steps of size, of blur and of place, because a
clip that a small model made is a little off in all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .render import signed_distance
from .scene import SHAPES, SIZES

_CELLS = 37
_HALF = 0.30
GRID = np.linspace(-_HALF, _HALF, _CELLS).astype(np.float32)
"""Offsets from the centroid at which pictures are taken, along x and along y."""

_RADII = np.geomspace(0.085, 0.235, 13)
_BLURS = (0.4, 1.2, 2.0)  # standard deviations in pixels; interpolation alone gives the first
_SHIFTS = (-1, 0, 1)  # in cells
_BOUNDARY = (SIZES["small"] * SIZES["large"]) ** 0.5


@dataclass(frozen=True, kw_only=True)
class Match:
    """The best drawing.

    `offset`: from the centroid to the centre of the box, (x, y). `score`: correlation with the picture, at most 1.
    """

    shape: str
    size: str
    radius: float
    offset: tuple[float, float]
    score: float


def picture(coverage: np.ndarray, visible: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The average of a moving blob over frames, aligned by its centroids. Shape (cells, cells), float32.

    Args:
        coverage: Shape (T, H, W).
        visible: Shape (T, H, W), bool; other pixels don't count.
        centroids: Shape (T, 2), (x, y) in units of the shorter side.
    """
    frames, height, width = coverage.shape
    pixels = min(height, width)
    low_x, part_x = _split(centroids[:, 0], pixels)
    low_y, part_y = _split(centroids[:, 1], pixels)
    total = np.zeros((frames, _CELLS, _CELLS), dtype=np.float32)
    weight = np.zeros_like(total)
    rows_of_frames = np.arange(frames)[:, None, None]
    for right in (0, 1):
        for down in (0, 1):
            rows = ((low_y + down) % height)[:, :, None]
            columns = ((low_x + right) % width)[:, None, :]
            near_y = part_y if down else 1 - part_y
            near_x = part_x if right else 1 - part_x
            share = near_y[:, :, None] * near_x[:, None, :] * visible[rows_of_frames, rows, columns]
            total += share * coverage[rows_of_frames, rows, columns]
            weight += share
    average: np.ndarray = total.sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-3)
    return average


def match(blob: np.ndarray, pixels: int) -> Match:
    """The drawing nearest to a picture. `pixels`: the clip's pixels per unit, which sets how sharp edges can be."""
    drawings, offsets, radii = _bank(pixels)
    flat = blob.ravel() - blob.mean()
    scores = drawings @ (flat / max(float(np.linalg.norm(flat)), 1e-6))
    best = int(scores.argmax())
    radius = float(radii[best])
    return Match(
        shape=SHAPES[best // (len(drawings) // len(SHAPES))],
        size="small" if radius < _BOUNDARY else "large",
        radius=radius,
        offset=(float(offsets[best, 0]), float(offsets[best, 1])),
        score=float(scores[best]),
    )


@lru_cache(maxsize=8)
def _bank(pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All drawings, shape by shape, as unit vectors without their mean; where each one's centre is; its radius."""
    step = float(GRID[1] - GRID[0])
    drawings, offsets, radii = [], [], []
    blurs = np.stack([_blur(sigma / pixels) for sigma in _BLURS])
    for shape in SHAPES:
        for radius in _RADII:
            # A triangle's centroid is a third of its radius below the middle of its box.
            centre_y = -radius / 3 if shape == "triangle" else 0.0
            for i in _SHIFTS:
                for j in _SHIFTS:
                    x, y = i * step, centre_y + j * step
                    distance = signed_distance(shape, radius, GRID[None, :] - x, GRID[:, None] - y)
                    sharp = np.clip(0.5 - distance * pixels, 0.0, 1.0)
                    drawings.append(blurs @ sharp @ blurs.transpose(0, 2, 1))
                    offsets += [(x, y)] * len(_BLURS)
                    radii += [radius] * len(_BLURS)
    bank = np.concatenate(drawings).reshape(len(radii), -1)
    bank -= bank.mean(axis=1, keepdims=True)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    return bank.astype(np.float32), np.array(offsets), np.array(radii)


def _blur(sigma: float) -> np.ndarray:
    """A Gaussian along one axis as a matrix. Shape (cells, cells)."""
    kernel = np.exp(-0.5 * ((GRID[:, None] - GRID[None, :]) / sigma) ** 2)
    normal: np.ndarray = kernel / kernel.sum(axis=1, keepdims=True)
    return normal


def _split(centroid: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Grid places as a pixel and the part of the way to the next one, each shape (T, cells)."""
    place = (centroid[:, None] + GRID) * pixels - 0.5
    low = np.floor(place)
    return low.astype(np.int64), (place - low).astype(np.float32)
