"""Sizes for batches; every number here was worked out by hand."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from clip_files import Listed, clip

from modelgrow.surgery import DataError
from modelgrow.train.data import Bucket, choose_buckets
from modelgrow.train.data.buckets import legal_lengths, legal_size, nearest_aspect


def test_one_size_for_all_refuses_what_is_too_short() -> None:
    source = Listed(clips=(clip("a", num_frames=9), clip("b", num_frames=8), clip("c", num_frames=50, height=99)))
    found = choose_buckets(source, num_frames=9, height=48, width=64, temporal_factor=4, spatial_factor=16)
    assert found.buckets == (Bucket(num_frames=9, height=48, width=64, clips=(0, 2)),)
    assert [(refused.name, refused.reason) for refused in found.refused] == [("b", "has 8 frames, 9 are needed")]


@pytest.mark.parametrize(
    ("longest", "factor", "causal", "expected"),
    [
        (81, 4, True, (81, 41, 21, 9, 5)),  # 20, 10, 5, 2, 1 steps of 4
        (83, 4, True, (81, 41, 21, 9, 5)),
        (49, 8, True, (49, 25, 9)),
        (16, 4, False, (16, 8, 4)),
        (14, 1, False, (14, 7, 3, 1)),
        (4, 4, True, ()),
    ],
)
def test_legal_lengths(longest: int, factor: int, causal: bool, expected: tuple[int, ...]) -> None:
    assert legal_lengths(longest, factor, causal) == expected


@pytest.mark.parametrize(
    ("aspect", "area", "factor", "expected"),
    [
        (Fraction(16, 9), 480 * 832, 16, (464, 832)),  # 473.96 x 842.6
        (Fraction(1), 64 * 64, 16, (64, 64)),
        (Fraction(3, 4), 3 * 4 * 100, 10, (40, 30)),
        (Fraction(21, 9), 100, 16, (16, 16)),  # nothing smaller is legal
    ],
)
def test_legal_size(aspect: Fraction, area: float, factor: int, expected: tuple[int, int]) -> None:
    assert legal_size(aspect, area, factor) == expected


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (720, 1280, Fraction(16, 9)),
        (1920, 1080, Fraction(9, 16)),
        (512, 512, Fraction(1)),
        (480, 720, Fraction(4, 3)),  # 1.5 is nearer to 1.333 (x 1.125) than to 1.778 (x 1.185)
        (800, 2560, Fraction(21, 9)),
    ],
)
def test_nearest_aspect(height: int, width: int, expected: Fraction) -> None:
    assert nearest_aspect(height, width) == expected


def test_clips_are_grouped_by_length_and_shape() -> None:
    source = Listed(
        clips=(
            clip("wide", num_frames=90, height=90, width=160),
            clip("square", num_frames=30, height=80, width=80),
            clip("wide too", num_frames=81, height=180, width=320),
            clip("upright", num_frames=81, height=160, width=90),
            clip("still", num_frames=4, height=90, width=160),
            clip("wide third", num_frames=100, height=90, width=160),
        )
    )
    found = choose_buckets(source, temporal_factor=4, spatial_factor=16)
    assert found.buckets == (
        Bucket(num_frames=81, height=80, width=160, clips=(0, 2, 5)),  # the middle area is 90 x 160
        Bucket(num_frames=81, height=160, width=80, clips=(3,)),
        Bucket(num_frames=21, height=80, width=80, clips=(1,)),
    )
    assert [(refused.name, refused.reason) for refused in found.refused] == [("still", "has 4 frames, 5 are needed")]


def test_the_union_that_loses_least_is_made() -> None:
    """Two square clips of 21 frames and three of 81; one of 81 is 4:3.

    Joining the 4:3 with the squares of its length loses 1 x (1 - 3/4) = 0.25 clips; the lengths 3 x (1 - 21/81)
    or more.
    """
    clips = (
        *(clip(f"long {number}", num_frames=81, height=64, width=64) for number in range(3)),
        *(clip(f"short {number}", num_frames=21, height=64, width=64) for number in range(2)),
        clip("wide", num_frames=81, height=48, width=64),
    )
    found = choose_buckets(Listed(clips=clips), temporal_factor=4, spatial_factor=16, max_buckets=2)
    assert found.buckets == (
        Bucket(num_frames=81, height=64, width=64, clips=(0, 1, 2, 5)),
        Bucket(num_frames=21, height=64, width=64, clips=(3, 4)),
    )
    one = choose_buckets(Listed(clips=clips), temporal_factor=4, spatial_factor=16, max_buckets=1)
    assert one.buckets == (Bucket(num_frames=21, height=64, width=64, clips=(0, 1, 2, 3, 4, 5)),)


def test_a_loss_is_counted_in_clips() -> None:
    """Cropping 4:3 to a square and 16:9 to 4:3 both lose a quarter: of ten clips, and of one."""
    squares = tuple(clip(f"square {number}", height=96, width=96) for number in range(12))
    wide = tuple(clip(f"wide {number}", height=96, width=128) for number in range(10))
    clips = (*squares, *wide, clip("wider", height=90, width=160))
    found = choose_buckets(Listed(clips=clips), temporal_factor=4, spatial_factor=16, max_buckets=2)
    assert [(bucket.height, bucket.width, len(bucket.clips)) for bucket in found.buckets] == [
        (96, 96, 12),
        (96, 128, 11),
    ]


def test_the_budgets_hold() -> None:
    source = Listed(clips=(clip("large", num_frames=1000, height=1080, width=1920),))
    (bucket,) = choose_buckets(source, temporal_factor=4, spatial_factor=16).buckets
    assert (bucket.num_frames, bucket.height, bucket.width) == (81, 464, 832)
    (bucket,) = choose_buckets(
        source, temporal_factor=8, spatial_factor=32, max_frames=121, max_pixels=512 * 512, height=None
    ).buckets
    assert (bucket.num_frames, bucket.height, bucket.width) == (121, 384, 672)  # of 384 x 682.7


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"num_frames": 16}, r"num_frames 16 is not 1 \+ a multiple of 4, .* try 13"),
        ({"num_frames": 17, "causal": False}, r"num_frames 17 is not a multiple of 4, .* try 16"),
        ({"num_frames": 2}, r"try 5"),
        ({"height": 40, "width": 64}, r"height 40 is no multiple of 16, .* try 32"),
        ({"height": 32, "width": 0}, r"width 0 is no multiple of 16, .* try 16"),
        ({"height": 32}, r"height and width go together"),
        ({"num_frames": 13}, r"every clip is too short: 13 frames are needed, the longest has 9"),
    ],
)
def test_sizes_that_make_no_sense(size: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose_buckets(Listed(clips=(clip("a"),)), temporal_factor=4, spatial_factor=16, **size)


def test_no_clip_of_any_legal_length() -> None:
    with pytest.raises(DataError, match="5 frames are needed, the longest has 3"):
        choose_buckets(Listed(clips=(clip("a", num_frames=3),)), temporal_factor=4, spatial_factor=16)
