"""Which clips a step takes: every clip once a round, the same again for the same seed and step."""

from __future__ import annotations

from collections import Counter

import pytest

from modelgrow.surgery import TrainError
from modelgrow.train.data import Bucket
from modelgrow.train.data.order import choose, cycle_of


def bucket(first: int, count: int) -> Bucket:
    return Bucket(num_frames=5, height=16, width=16, clips=tuple(range(first, first + count)))


BUCKETS = (bucket(0, 24), bucket(24, 12))
"""With batches of 4, a cycle has 6 steps of the first and 3 of the second: each clip once."""


def test_cycles_by_hand() -> None:
    assert cycle_of(BUCKETS, 4) == (6, 3)
    assert cycle_of((bucket(0, 10), bucket(10, 9), bucket(19, 1)), 4) == (3, 2, 1)  # 2.5 and 2.25 rounded, 1 at least


@pytest.mark.parametrize("seed", [0, 1])
def test_every_clip_once_a_cycle_and_every_batch_from_one_bucket(seed: int) -> None:
    orders = []
    for cycle in range(3):
        steps = [choose(BUCKETS, batch_size=4, seed=seed, step=9 * cycle + step) for step in range(9)]
        assert Counter(index for step in steps for index in step) == Counter(range(36))
        for step in steps:
            assert max(step) < 24 or min(step) >= 24
        orders.append(steps)
    sides = {tuple(step[0] >= 24 for step in steps) for steps in orders}
    rounds = {tuple(index for step in steps for index in step if index < 24) for steps in orders}
    assert len(sides) > 1
    assert len(rounds) == 3


def test_a_step_follows_from_the_seed_alone() -> None:
    late = choose(BUCKETS, batch_size=4, seed=3, step=1000)
    first = [choose(BUCKETS, batch_size=4, seed=3, step=step) for step in range(20)]
    assert choose(BUCKETS, batch_size=4, seed=3, step=1000) == late
    assert [choose(BUCKETS, batch_size=4, seed=3, step=step) for step in range(20)] == first
    assert [choose(BUCKETS, batch_size=4, seed=4, step=step) for step in range(20)] != first


def test_buckets_are_mixed() -> None:
    """Not first all steps of one, then all of the other."""
    sides = [
        "".join("ab"[choose(BUCKETS, batch_size=4, seed=seed, step=step)[0] >= 24] for step in range(9))
        for seed in range(8)
    ]
    assert len(set(sides)) > 4
    assert all(Counter(side) == {"a": 6, "b": 3} for side in sides)


def test_processes_take_disjoint_parts_of_what_one_would_take() -> None:
    """Two processes with batches of 2 see in each step what one with batches of 4 sees."""
    for step in range(18):
        whole = choose(BUCKETS, batch_size=4, seed=5, step=step)
        parts = [choose(BUCKETS, batch_size=2, seed=5, step=step, rank=rank, num_processes=2) for rank in range(2)]
        assert parts[0] + parts[1] == whole
        assert not set(parts[0]) & set(parts[1])


def test_a_bucket_that_batches_do_not_divide_still_gives_every_clip_equally_often() -> None:
    """7 clips in steps of 3: 7 steps are 3 rounds."""
    seen = Counter(index for step in range(7) for index in choose((bucket(0, 7),), batch_size=3, seed=0, step=step))
    assert seen == {index: 3 for index in range(7)}


def test_fewer_clips_than_a_batch() -> None:
    assert Counter(choose((bucket(5, 1),), batch_size=3, seed=0, step=7)) == {5: 3}
    assert set(choose((bucket(0, 2),), batch_size=4, seed=0, step=0)) == {0, 1}


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"step": -1}, {"seed": -1}, {"rank": 2, "num_processes": 2}, {"rank": -1}]
)
def test_no_such_batch(options: dict[str, int]) -> None:
    with pytest.raises(TrainError, match="no such batch"):
        choose(BUCKETS, **{"batch_size": 1, "seed": 0, "step": 0, **options})
