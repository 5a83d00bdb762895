"""What a data set holds, for a look before hours are spent on it."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from modelgrow.surgery import DataError
from modelgrow.surgery.staging import staged_file

from .buckets import MAX_FRAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .buckets import Buckets
    from .clip import Clip, ClipSource, Refused

_LEAST, _SIDE = 96, 160
"""Pixels of a picture's shorter side on a contact sheet, at least (enlarged by whole numbers) and about at most."""
_GAP, _LINE, _INK, _PAPER = 8, 16, (40, 40, 40), (250, 250, 250)


@dataclass(frozen=True, kw_only=True)
class Range:
    """Of some numbers: the least, the middle, the most."""

    least: float
    median: float
    most: float


@dataclass(frozen=True, kw_only=True)
class BucketReport:
    """How many clips are brought to which size."""

    num_frames: int
    height: int
    width: int
    clips: int


@dataclass(frozen=True, kw_only=True)
class ControlReport:
    """How many clips have a control clip of a name, refused ones too, and whether the model reads it."""

    name: str
    clips: int
    read: bool

    @property
    def sentence(self) -> str:
        number = f"{self.clips} clip{'s' * (self.clips != 1)}"
        return f"{self.name} lies beside {number}, and is {'read' if self.read else 'not read by this model'}"


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """A data set in numbers. Sizes are the files' own, in pixels; lengths in frames; captions in words.

    `seconds`: of all clips that say how fast they run. `frames_used`: the share of the clips' frames that
    is trained on; the rest stands after a bucket's length.
    """

    name: str
    fingerprint: str
    clips: int
    seconds: float
    num_frames: Range
    height: Range
    width: Range
    caption_words: Range
    long_captions: int
    frames_used: float
    controls: tuple[ControlReport, ...] = ()
    buckets: tuple[BucketReport, ...]
    refused: tuple[Refused, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def report(source: ClipSource, buckets: Buckets) -> DataReport:
    """Say what a source holds, what is trained on, and what was refused and why."""
    clips = source.clips
    used = [(bucket, [clips[place] for place in bucket.clips]) for bucket in buckets.buckets]
    there = sum(clip.num_frames for _, members in used for clip in members)
    return DataReport(
        name=source.name,
        fingerprint=source.fingerprint,
        clips=sum(len(members) for _, members in used),
        seconds=sum(clip.num_frames / clip.fps for clip in clips if clip.fps),
        num_frames=_range(clip.num_frames for clip in clips),
        height=_range(clip.height for clip in clips),
        width=_range(clip.width for clip in clips),
        caption_words=_range(len(clip.caption.split()) for clip in clips),
        long_captions=sum(clip.long_caption is not None for clip in clips),
        frames_used=sum(bucket.num_frames * len(members) for bucket, members in used) / there,
        buckets=tuple(
            BucketReport(num_frames=bucket.num_frames, height=bucket.height, width=bucket.width, clips=len(members))
            for bucket, members in used
        ),
        controls=tuple(
            ControlReport(name=name, clips=number, read=name in clips[0].controls)
            for name, number in sorted(source.found_controls.items())
        ),
        refused=(*source.refused, *buckets.refused),
    )


def contact_sheet(
    source: ClipSource, path: Path, *, buckets: Buckets | None = None, count: int = 8, overwrite: bool = False
) -> tuple[str, ...]:
    """Draw the first, the middle and the last frame of some clips, with their captions, above their control clips'.

    Args:
        source: The clips.
        path: The PNG to write.
        buckets: Show clips as they are trained on, some of every bucket; None shows them as they are, up to
            their frame `MAX_FRAMES`.
        count: How many clips, at most.
        overwrite: Replace a file that exists.

    Returns:
        The keys of the clips shown. One that can't be read is left out.

    Raises:
        DataError: None of them can be read.
        OutputError: The file exists, or can't be written.
    """
    sizes = _sizes(source, buckets)
    chosen = [sizes[number * len(sizes) // min(count, len(sizes))] for number in range(min(count, len(sizes)))]
    rows, shown, faults = [], [], []
    for clip, num_frames, height, width in chosen:
        try:
            frames = _frames(source, clip, num_frames, height, width)
        except DataError as error:
            faults.append(str(error))
            continue
        rows.append(_row(frames, f"{clip.key}: {clip.caption}"))
        shown.append(clip.key)
    if not rows:
        raise DataError(f"{source.name}: no clip can be shown; the first: {faults[0]}")
    with staged_file(path, inputs=[], overwrite=overwrite) as place_of_file:
        _stack(rows).save(place_of_file, format="PNG")
    return tuple(shown)


def _frames(source: ClipSource, clip: Clip, num_frames: int, height: int, width: int) -> np.ndarray:
    """Three frames of a clip, each above those of its control clips: `(3, H, W, 3)` uint8."""
    shrink = min(1.0, _SIDE / min(height, width))
    size = {"num_frames": num_frames, "height": round(height * shrink), "width": round(width * shrink)}
    shown = [source.read(clip, **size), *(source.read_control(clip, name, **size) for name in clip.controls)]
    return np.concatenate([frames[[0, num_frames // 2, -1]] for frames in shown], axis=1)


def _sizes(source: ClipSource, buckets: Buckets | None) -> list[tuple[Clip, int, int, int]]:
    """What may be shown: a clip, and the frames, height and width to read it with."""
    if buckets is None:
        return [(clip, min(clip.num_frames, MAX_FRAMES), clip.height, clip.width) for clip in source.clips]
    return [
        (source.clips[place], bucket.num_frames, bucket.height, bucket.width)
        for bucket in buckets.buckets
        for place in bucket.clips
    ]


def _row(frames: np.ndarray, text: str) -> Image.Image:
    """Pictures side by side, below what they should show."""
    font = ImageFont.load_default(size=_LINE - 3)
    factor = -(-_LEAST // min(frames.shape[1:3]))
    frames = frames.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = frames.shape[1:3]
    full = _GAP + len(frames) * (width + _GAP)
    lines = textwrap.wrap(text, max(8, int((full - 2 * _GAP) / font.getlength("n"))))
    row = Image.new("RGB", (full, _GAP + len(lines) * _LINE + _GAP // 2 + height), _PAPER)
    draw = ImageDraw.Draw(row)
    for number, line in enumerate(lines):
        draw.text((_GAP, _GAP + number * _LINE), line, fill=_INK, font=font)
    for number, frame in enumerate(frames):
        row.paste(Image.fromarray(frame), (_GAP + number * (width + _GAP), row.height - height))
    return row


def _stack(rows: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows) + _GAP), _PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _range(numbers: Iterable[float]) -> Range:
    values = list(numbers)
    return Range(least=min(values), median=float(median(values)), most=max(values))
