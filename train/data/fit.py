"""One size to another: the middle of the picture, nothing stretched."""

from __future__ import annotations

import numpy as np
from PIL import Image


def crop_box(height: int, width: int, *, to_height: int, to_width: int) -> tuple[float, float, float, float]:
    """The largest part in the middle with the proportions asked for: left, top, right, bottom in source pixels."""
    scale = min(height / to_height, width / to_width)
    left, top = (width - to_width * scale) / 2, (height - to_height * scale) / 2
    return left, top, width - left, height - top


def fit(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop and resize a frame `(H, W, 3)` uint8 to `(height, width, 3)`: bicubic, antialiased."""
    box = crop_box(*frame.shape[:2], to_height=height, to_width=width)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC, box=box))
