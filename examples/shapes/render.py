"""Scene to pixels: signed distances, so edges are smooth at every resolution.

Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

import numpy as np

from .scene import BACKGROUNDS, COLORS, SHAPES, Object, Scene

CROSS_ARM = 0.36
"""Half the width of a cross's arm, as a share of its radius."""

SQUARE_SIDE = 0.89
"""Half the side of a square, as a share of its radius: about the area of the circle."""


def signed_distance(shape: str, radius: float, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Distance to a shape's edge, negative inside. `dx`, `dy`: offsets from its centre, same units as `radius`."""
    distance: np.ndarray
    if shape == "circle":
        distance = np.hypot(dx, dy) - radius
    elif shape == "square":
        distance = np.maximum(np.abs(dx), np.abs(dy)) - SQUARE_SIDE * radius
    elif shape == "triangle":
        slope = np.hypot(2.0, 1.0)  # base 2r, height 2r, pointing up
        distance = np.maximum((2 * np.abs(dx) - dy - radius) / slope, dy - radius)
    elif shape == "cross":
        arm = CROSS_ARM * radius
        along = np.maximum(np.abs(dx) - radius, np.abs(dy) - arm)
        across = np.maximum(np.abs(dx) - arm, np.abs(dy) - radius)
        distance = np.minimum(along, across)
    else:
        raise ValueError(f"unknown shape {shape!r}; choose from {', '.join(SHAPES)}")
    return distance


def coverage(obj: Object, num_frames: int, height: int, width: int, extent: tuple[float, float]) -> np.ndarray:
    """How much of each pixel an object covers, 0 to 1. Shape (T, H, W), float32."""
    pixels = min(height, width)
    path = obj.path(num_frames, extent).astype(np.float32)
    dx = _offsets(path[:, 0], width, pixels, extent[0])[:, None, :]
    dy = _offsets(path[:, 1], height, pixels, extent[1])[:, :, None]
    distance = signed_distance(obj.shape, obj.radius, dx, dy)
    return np.clip(0.5 - distance * pixels, 0.0, 1.0).astype(np.float32)


def _offsets(centres: np.ndarray, count: int, pixels: int, side: float) -> np.ndarray:
    """From each centre to each pixel's centre, the short way round the torus. Shape (T, count)."""
    grid = (np.arange(count, dtype=np.float32) + 0.5) / pixels
    offsets: np.ndarray = (grid[None, :] - centres[:, None] + side / 2) % side - side / 2
    return offsets


def render(scene: Scene, *, num_frames: int = 17, height: int = 64, width: int = 64) -> np.ndarray:
    """Draw a scene.

    Returns:
        Shape (T, H, W, 3), uint8. A longer clip begins with the shorter one's frames.
    """
    frames = np.empty((num_frames, height, width, 3), dtype=np.float32)
    frames[:] = BACKGROUNDS[scene.background]
    for obj in scene.objects:
        alpha = coverage(obj, num_frames, height, width, scene.extent)[..., None]
        frames += alpha * (np.asarray(COLORS[obj.color], dtype=np.float32) - frames)
    return np.rint(frames).astype(np.uint8)
