"""Sinusoids of frames' numbers as SVD computes them, by the same code and so with the same last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers.models.embeddings import Timesteps

if TYPE_CHECKING:
    from collections.abc import Sequence


def sinusoids(positions: Sequence[int], width: int) -> bytes:
    """(positions, width), float32, little-endian; for `modelgrow.surgery.exvideo.plan_exvideo`."""
    table: torch.Tensor = Timesteps(width, True, 0)(torch.tensor(positions))
    return table.numpy().astype("<f4").tobytes()
