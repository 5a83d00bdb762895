"""Few sizes for many clips: a batch holds clips of one size, and a VAE takes some sizes only.

A length is legal if it is 1 + k x the VAE's temporal factor, as causal VAEs have it, or k x the factor for
the others; a side if it is a multiple of the spatial factor.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from statistics import median_low
from typing import TYPE_CHECKING

from modelgrow.surgery import DataError

from .clip import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .clip import Clip, ClipSource

ASPECTS = tuple(Fraction(*pair) for pair in ((9, 21), (9, 16), (3, 4), (1, 1), (4, 3), (16, 9), (21, 9)))
"""Width over height of the pictures that clips are cropped to."""
MAX_PIXELS = 832 * 480
MAX_FRAMES = 81


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A size and the clips that are brought to it. `clips`: their places in the source's `clips`, ascending."""

    num_frames: int
    height: int
    width: int
    clips: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """All buckets of a source, the fullest first, and the clips that fit in none."""

    buckets: tuple[Bucket, ...]
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """Clips of about one length and one shape."""

    num_frames: int
    aspect: Fraction
    clips: tuple[int, ...]


def choose_buckets(
    source: ClipSource,
    *,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    temporal_factor: int,
    spatial_factor: int,
    causal: bool = True,
    max_buckets: int = 4,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
) -> Buckets:
    """Choose the sizes that clips are brought to.

    What is given holds for every clip. What is not is chosen: lengths from a ladder that halves, each clip
    at the longest that it reaches; shapes from `ASPECTS`, each clip at the nearest; then the two buckets
    whose union loses the least of their clips are joined, until there are few enough. A joined bucket has
    the shorter length, and the shape of the fuller. Its area is the middle one of its clips', so that half
    of them are not enlarged, and `max_pixels` at most.

    Args:
        source: The clips.
        num_frames, height, width: What to use. Height and width go together.
        temporal_factor, spatial_factor: Pixels per latent of the VAE, in time and in space; the spatial one
            times the model's patch.
        causal: Whether the VAE encodes the first frame by itself: 1 + k x factor frames, else k x factor.
        max_buckets: How many at most.
        max_pixels, max_frames: Of a frame, and of a clip, where they are chosen.

    Raises:
        DataError: A size that the VAE does not take, or every clip is too short.
    """
    _check(num_frames, height, width, temporal_factor, spatial_factor, causal)
    lengths = (num_frames,) if num_frames else _ladder(source.clips, temporal_factor, causal, max_frames)
    cells, refused = _sorted(source.clips, lengths, Fraction(width, height) if width and height else None)
    if not cells:
        raise DataError(
            f"{source.name}: every clip is too short: {min(lengths)} frames are needed, the longest has "
            f"{max(clip.num_frames for clip in source.clips)}. Ask for fewer with --frames (num_frames)"
        )
    joined = _join(cells, max_buckets)
    buckets = [_sized(cell, source.clips, height, width, spatial_factor, max_pixels) for cell in joined]
    return Buckets(buckets=tuple(buckets), refused=tuple(refused))


def _sorted(
    clips: Sequence[Clip], lengths: tuple[int, ...], aspect: Fraction | None
) -> tuple[list[_Cell], list[Refused]]:
    """Each clip at the longest length that it reaches, and in the given shape or the nearest; those that reach none."""
    cells: dict[tuple[int, Fraction], list[int]] = defaultdict(list)
    refused = []
    for place, clip in enumerate(clips):
        length = max((length for length in lengths if length <= clip.num_frames), default=None)
        if length is None:
            whose = f"its {clip.shortest} " if clip.shortest else ""
            refused.append(
                Refused(name=clip.key, reason=f"{whose}has {clip.num_frames} frames, {min(lengths)} are needed")
            )
            continue
        cells[length, aspect or nearest_aspect(clip.height, clip.width)].append(place)
    return [_Cell(num_frames=t, aspect=a, clips=tuple(c)) for (t, a), c in cells.items()], refused


def nearest_aspect(height: int, width: int) -> Fraction:
    """The one of `ASPECTS` that a picture loses least by being cropped to."""
    return min(ASPECTS, key=lambda aspect: abs(math.log(width / height / aspect)))


def legal_lengths(longest: int, factor: int, causal: bool) -> tuple[int, ...]:
    """A ladder of lengths, from the longest legal one downwards by halves: 81, 41, 21, 9, 5 for a factor of 4."""
    lengths = []
    steps = (longest - causal) // factor
    while steps >= 1:
        lengths.append(causal + steps * factor)
        steps //= 2
    return tuple(lengths)


def legal_size(aspect: Fraction, area: float | Fraction, factor: int) -> tuple[int, int]:
    """Height and width of about this shape, multiples of the factor, together no more than the area if it allows it."""
    height, width = math.sqrt(area / aspect), math.sqrt(area * aspect)
    return max(factor, int(height / factor + 1e-9) * factor), max(factor, int(width / factor + 1e-9) * factor)


def _ladder(clips: Sequence[Clip], factor: int, causal: bool, max_frames: int) -> tuple[int, ...]:
    longest = max(clip.num_frames for clip in clips)
    # With one step at least, even if no clip reaches it: the message then says what was needed.
    return legal_lengths(max(min(longest, max_frames), causal + factor), factor, causal)


def _join(cells: list[_Cell], most: int) -> list[_Cell]:
    """Join the pair that loses the least, again and again. The fullest come first."""
    cells = sorted(cells, key=_order)
    while len(cells) > max(most, 1):
        one, other = min(combinations(cells, 2), key=lambda pair: _loss(_union(*pair), pair))
        cells = sorted([*(cell for cell in cells if cell not in (one, other)), _union(one, other)], key=_order)
    return cells


def _order(cell: _Cell) -> tuple[int, int, Fraction]:
    return -len(cell.clips), -cell.num_frames, cell.aspect


def _union(one: _Cell, other: _Cell) -> _Cell:
    """`one` is the fuller, as they are in order."""
    clips = tuple(sorted(one.clips + other.clips))
    return replace(one, num_frames=min(one.num_frames, other.num_frames), clips=clips)


def _loss(union: _Cell, cells: Iterable[_Cell]) -> float:
    """How many clips' worth of pixels is cut off when cells are joined."""
    return sum(
        len(cell.clips)
        * (1 - union.num_frames / cell.num_frames * min(union.aspect / cell.aspect, cell.aspect / union.aspect))
        for cell in cells
    )


def _sized(
    cell: _Cell, clips: Sequence[Clip], height: int | None, width: int | None, factor: int, max_pixels: int
) -> Bucket:
    if height is None or width is None:
        areas = [_cropped_area(clips[place], cell.aspect) for place in cell.clips]
        height, width = legal_size(cell.aspect, min(Fraction(max_pixels), median_low(areas)), factor)
    return Bucket(num_frames=cell.num_frames, height=height, width=width, clips=cell.clips)


def _cropped_area(clip: Clip, aspect: Fraction) -> Fraction:
    """Pixels that are left of a frame when it is cropped to a shape."""
    width = min(Fraction(clip.width), clip.height * aspect)
    return width * width / aspect


def _check(
    num_frames: int | None, height: int | None, width: int | None, temporal: int, spatial: int, causal: bool
) -> None:
    if (height is None) != (width is None):
        raise DataError("height and width go together: give both, or none to have them chosen")
    for name, side in (("height", height), ("width", width)):
        if side is not None and (side < 1 or side % spatial):
            low = max(side // spatial, 1) * spatial
            raise DataError(f"{name} {side} is no multiple of {spatial}, as this model needs; try {low}")
    if num_frames is not None and (num_frames < 1 or (num_frames - causal) % temporal):
        low = max((num_frames - causal) // temporal, 1) * temporal + causal
        rule = f"{'1 + ' if causal else ''}a multiple of {temporal}"
        raise DataError(f"num_frames {num_frames} is not {rule}, as this model's VAE needs; try {low}")
