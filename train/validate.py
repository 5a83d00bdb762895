"""Held-out clips: the loss on what is not trained on, always with the same noise, levels and captions."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from modelgrow.surgery import DataError

from .batch import Batch, draw_sample, join
from .preview import evaluating

if TYPE_CHECKING:
    from .cache import Cache
    from .data.buckets import Bucket
    from .loop import Loop

DRAWS = 4
"""Of noise and level, per clip."""


def hold_out(cache: Cache, share: float) -> tuple[Cache, tuple[Bucket, ...]]:
    """The cache without some clips, and those clips. Which ones follows from their keys alone, at least one.

    Raises:
        DataError: There is nothing left to train on.
    """
    if not share:
        return cache, ()
    order = sorted(range(len(cache)), key=lambda clip: hashlib.sha256(cache.keys[clip].encode()).digest())
    chosen = set(order[: max(1, round(share * len(order)))])
    rest = copy.copy(cache)
    rest.buckets = _only(cache.buckets, set(order) - chosen)
    if not rest.buckets:
        raise DataError(f"held_out {share} of {len(order)} clips leaves none to train on; give more clips, or 0")
    return rest, _only(cache.buckets, chosen)


def _only(buckets: tuple[Bucket, ...], chosen: set[int]) -> tuple[Bucket, ...]:
    some = (replace(bucket, clips=tuple(clip for clip in bucket.clips if clip in chosen)) for bucket in buckets)
    return tuple(bucket for bucket in some if bucket.clips)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Measures a loop's model on its run's held-out clips."""

    loop: Loop

    @torch.no_grad()
    def loss(self) -> float:
        """Mean over all draws of all held-out clips. Processes share them, and all call the model as often."""
        run, accelerator = self.loop.run, self.loop.run.accelerator
        parts, mine = self._parts(), accelerator.process_index
        total = torch.zeros(2, device=accelerator.device)
        with evaluating(run.model):
            for first in range(0, len(parts), accelerator.num_processes):
                place = first + mine
                part = parts[place % len(parts)]
                error = self.loop.error(self._batch(part)).detach()
                if place < len(parts):
                    total += torch.stack([error * len(part), error.new_tensor(len(part))])
        summed = accelerator.reduce(total, reduction="sum")
        return float(summed[0] / summed[1])

    def _parts(self) -> list[list[tuple[int, int]]]:
        """Batches of (clip, draw), each of one size of clips."""
        size = self.loop.run.settings.batch_size
        parts = []
        for bucket in self.loop.run.held_out:
            pairs = [(clip, draw) for clip in bucket.clips for draw in range(DRAWS)]
            parts += [pairs[first : first + size] for first in range(0, len(pairs), size)]
        return parts

    def _batch(self, part: list[tuple[int, int]]) -> Batch:
        run = self.loop.run
        settings = replace(run.settings, caption_dropout=0.0)
        return join(
            [draw_sample(run.cache, run.objective, settings, clip, "held out", clip, draw) for clip, draw in part]
        )
