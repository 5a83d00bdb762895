"""What every source of clips gives: what is there, what was refused and why, and pixels on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip as it lies there, before any of it is read.

    `key`: unique in its source, and the same whenever it is opened. `caption`: runs of white space are
    one space; "" where the source was opened without captions. `num_frames`, `height`, `width`: as
    displayed, so a phone's upright clip is upright. `fps`: None if the file does not say. `path`: the
    file it lies in; None for drawn clips. `controls`: the names of its control clips that are read, sorted; the
    clip counts as no longer than the shortest of them, which `shortest` names if it is shorter than the clip itself.
    """

    key: str
    caption: str
    long_caption: str | None = None
    num_frames: int
    height: int
    width: int
    fps: float | None = None
    path: Path | None = None
    controls: tuple[str, ...] = ()
    shortest: str | None = None


@dataclass(frozen=True, kw_only=True)
class Refused:
    """What can't be trained on. `name`: its key, or the file and line that name it."""

    name: str
    reason: str


class ClipSource(Protocol):
    """Clips of one origin, in an order that does not change."""

    @property
    def name(self) -> str:
        """What the user called it."""

    @property
    def clips(self) -> tuple[Clip, ...]: ...

    @property
    def refused(self) -> tuple[Refused, ...]: ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what identifies the clips: keys, captions, sizes and samples of the files' bytes,
        and of the bytes of control clips that are read."""

    @property
    def found_controls(self) -> Mapping[str, int]:
        """How many clips have a control clip of each name, refused ones too, read or not."""

    def read(self, clip: Clip, *, num_frames: int, height: int, width: int) -> np.ndarray:
        """The first `num_frames` frames, one after the other: the clip's own speed, from its start.

        The largest part in the middle that has the proportions asked for is resized (bicubic, antialiased).

        Returns:
            Shape `(num_frames, height, width, 3)`, uint8.

        Raises:
            DataError: The clip is shorter, or can't be decoded that far.
        """

    def read_control(self, clip: Clip, name: str, *, num_frames: int, height: int, width: int) -> np.ndarray:
        """The clip's control clip of a name, one of `clip.controls`; otherwise as `read`."""
