"""Control clips in a data set: which are there, which are read, and whether each fits the clip that it lies beside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from modelgrow.pipelines.controls import NAMES
from modelgrow.surgery import DataError

from . import video
from .clip import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .found import Found
    from .media import Media
    from .video import VideoInfo

TOLERANCE = 0.01
"""How far a control clip's frame rate may be from its clip's, as a share of the faster one."""

_NEEDED = "which this model reads; name it in a column {name} of the list, or lay it beside X.mp4 as X.{name}.mp4"

Required = bool
"""Whether a model that reads a control clip can't do without it."""


def name_of(file: str) -> tuple[str, str] | None:
    """Of "cat.pose_video.mp4" the stem of the clip that it lies beside, and its name; None for a clip's own file."""
    stem, _, name = PurePosixPath(file).stem.rpartition(".")
    return (stem, name) if stem and name in NAMES else None


def alone(key: str, stem: str) -> Refused:
    """A control clip without a clip."""
    return Refused(name=key, reason=f"is a control clip, and there is no video {stem} beside it")


def used(found: tuple[Found, ...], wanted: Mapping[str, Required]) -> tuple[str, ...]:
    """Which of the control clips that a model reads it is given: what it needs, and what any clip has."""
    return tuple(name for name in sorted(wanted) if wanted[name] or any(name in item.controls for item in found))


def count(found: tuple[Found, ...]) -> dict[str, int]:
    """How many have each control clip."""
    counts = {name: sum(name in item.controls for item in found) for name in NAMES}
    return {name: number for name, number in counts.items() if number}


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A clip's control clips by name: their bytes, the digests of these, and their lengths in frames."""

    media: Mapping[str, Media]
    digests: Mapping[str, str]
    lengths: Mapping[str, int]

    def shorter_than(self, num_frames: int) -> str | None:
        """The shortest one, if it is shorter than that."""
        shortest = min(self.lengths, key=lambda name: self.lengths[name], default=None)
        return shortest if shortest is not None and self.lengths[shortest] < num_frames else None


def look(found: Found, info: VideoInfo, names: tuple[str, ...], wanted: Mapping[str, Required]) -> Beside:
    """Look into the control clips that are read of a clip.

    Args:
        found: The clip.
        info: What its own file holds.
        names: Those that are read, see `used`.
        wanted: Which of them the model can't do without.

    Raises:
        DataError: One is missing, can't be decoded, or runs at another rate. The message does not name the clip.
        OSError: One can't be read.
    """
    media: dict[str, Media] = {}
    digests: dict[str, str] = {}
    lengths: dict[str, int] = {}
    for name in names:
        place = found.controls.get(name)
        if place is None:
            raise DataError(f"has no {name}, {_NEEDED.format(name=name) if wanted[name] else 'and others have'}")
        if isinstance(place, DataError):
            raise DataError(f"its {name}: {place}")
        try:
            control = video.probe(place)
        except DataError as error:
            raise DataError(f"its {name} {error}") from error
        check_rate(name, control.fps, info.fps)
        media[name], digests[name] = place, place.digest()
        lengths[name] = control.num_frames
    return Beside(media=media, digests=digests, lengths=lengths)


def check_rate(name: str, rate: float | None, clips: float | None) -> None:
    """Raises `DataError` if a control clip does not run as fast as its clip, where both say how fast they run."""
    if rate is not None and clips is not None and abs(rate - clips) > TOLERANCE * max(rate, clips):
        raise DataError(
            f"its {name} runs at {rate:g} frames per second, the clip itself at {clips:g}; make both of one rate"
        )
