"""The small world as a torch dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader, Dataset

from ..clips import make_clip
from .settings import HEIGHT, WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


class ClipDataset(Dataset[tuple[torch.Tensor, str]]):
    """Clip `index` of series `seed`, as `(3, T, H, W)` uint8, with its short caption."""

    def __init__(self, *, seed: int, count: int, first: int = 0, num_objects: Sequence[int], num_frames: int) -> None:
        self.seed = seed
        self.count = count
        self.first = first
        self.num_objects = tuple(num_objects)
        self.num_frames = num_frames

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        clip = make_clip(
            seed=self.seed,
            index=self.first + index,
            num_objects=self.num_objects,
            num_frames=self.num_frames,
            height=HEIGHT,
            width=WIDTH,
        )
        return from_frames(clip.frames), clip.caption


def from_frames(frames: np.ndarray) -> torch.Tensor:
    """Frames `(T, H, W, 3)` to `(3, T, H, W)`, still uint8."""
    return torch.from_numpy(frames).permute(3, 0, 1, 2).contiguous()


def loader(dataset: ClipDataset, batch_size: int) -> DataLoader[tuple[torch.Tensor, str]]:
    """Batches in the order of the series; one process draws while the model trains."""
    return DataLoader(dataset, batch_size=batch_size, num_workers=1, prefetch_factor=4)


def to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 to float32 in [-1, 1], the range of a diffusers VAE."""
    return pixels.float().div_(127.5).sub_(1.0)
