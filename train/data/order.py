"""Which clips a step takes: a function of the seed and the step, so that a run resumes anywhere.

Each bucket is an endless row of permutations of its clips, every one with draws of its own: each clip once
per round. A step takes the next G = batch size x processes clips of one bucket, and process r the r-th part
of them. Which bucket is drawn in cycles: a cycle has about n / G steps of a bucket with n clips, one at
least, in an order drawn for it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from modelgrow.surgery import TrainError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .buckets import Bucket

_ROUND, _CYCLE = 0, 1  # keep the two kinds of draws apart


def cycle_of(buckets: Sequence[Bucket], group: int) -> tuple[int, ...]:
    """Steps of each bucket in a cycle: to the nearest, halves upwards, at least 1."""
    return tuple(max(1, (2 * len(bucket.clips) + group) // (2 * group)) for bucket in buckets)


def choose(
    buckets: Sequence[Bucket], *, batch_size: int, seed: int, step: int, rank: int = 0, num_processes: int = 1
) -> list[int]:
    """The clips of one process in one step, `batch_size` of them, as numbers from one bucket's `clips`.

    Processes never share a place in a round. Where a round ends within a step, or a bucket has fewer than G
    clips, a clip can stand in both rounds.

    Raises:
        TrainError: A number makes no sense.
    """
    if batch_size < 1 or step < 0 or seed < 0 or not 0 <= rank < num_processes:
        raise TrainError(
            f"no such batch: batch_size {batch_size}, seed {seed}, step {step}, rank {rank} of {num_processes}"
        )
    group = batch_size * num_processes
    counts = cycle_of(buckets, group)
    cycle, place = divmod(step, sum(counts))
    order = _cycle_order(counts, seed, cycle)
    number = int(order[place])
    turn = cycle * counts[number] + int((order[:place] == number).sum())
    clips = buckets[number].clips
    first = turn * group + rank * batch_size
    return [clips[_place(len(clips), seed, number, position)] for position in range(first, first + batch_size)]


def _place(count: int, seed: int, bucket: int, position: int) -> int:
    number, place = divmod(position, count)
    return int(_round(count, seed, bucket, number)[place])


@lru_cache(maxsize=64)
def _round(count: int, seed: int, bucket: int, number: int) -> np.ndarray:
    return np.random.default_rng([seed, _ROUND, bucket, number]).permutation(count)


@lru_cache(maxsize=8)
def _cycle_order(counts: tuple[int, ...], seed: int, cycle: int) -> np.ndarray:
    buckets = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng([seed, _CYCLE, cycle]).permutation(buckets)
