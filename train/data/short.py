"""A source without its long captions, for runs that never draw one: encoding them costs as much as the short ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from .clip import Clip, ClipSource, Refused


@dataclass(frozen=True)
class ShortCaptions:
    """A `ClipSource` around another."""

    source: ClipSource

    @property
    def name(self) -> str:
        return self.source.name

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        return tuple(replace(clip, long_caption=None) for clip in self.source.clips)

    @property
    def refused(self) -> tuple[Refused, ...]:
        return self.source.refused

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"short captions of {self.source.fingerprint}".encode()).hexdigest()

    @property
    def found_controls(self) -> Mapping[str, int]:
        return self.source.found_controls

    def read(self, clip: Clip, *, num_frames: int, height: int, width: int) -> np.ndarray:
        return self.source.read(clip, num_frames=num_frames, height=height, width=width)

    def read_control(self, clip: Clip, name: str, *, num_frames: int, height: int, width: int) -> np.ndarray:
        return self.source.read_control(clip, name, num_frames=num_frames, height=height, width=width)
