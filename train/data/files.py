"""A source whose clips are files: every video is opened once and looked into."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modelgrow.surgery import DataError

from . import video
from .clip import Clip, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .found import Found, Listing
    from .media import Media


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """Clips of a folder, a list, shards, or all of these."""

    name: str
    clips: tuple[Clip, ...]
    refused: tuple[Refused, ...]
    fingerprint: str
    media: Mapping[str, Media]
    """By key."""

    def read(self, clip: Clip, *, num_frames: int, height: int, width: int) -> np.ndarray:
        """See `ClipSource.read`."""
        if num_frames > clip.num_frames:
            raise DataError(f"{clip.key}: has {clip.num_frames} frames, {num_frames} are wanted")
        try:
            return video.read(self.media[clip.key], num_frames=num_frames, height=height, width=width)
        except DataError as error:
            raise DataError(f"{clip.key}: {error}") from error


def probe_all(
    listing: Listing, *, name: str, captions: bool, workers: int, report: Callable[[int, int], None] | None = None
) -> FileSource:
    """Look into every video of a listing.

    Args:
        listing: What was found; keys are unique.
        name: Of the source.
        captions: Refuse videos without one.
        workers: Threads that open files.
        report: Called with how many were looked into, and how many there are.

    Raises:
        DataError: Nothing is left.
    """
    looks: list[tuple[Clip, str] | Refused] = []
    with ThreadPoolExecutor(workers) as pool:
        for look in pool.map(lambda found: _look(found, captions), listing.found):
            looks.append(look)
            if report is not None:
                report(len(looks), len(listing.found))
    good = [look for look in looks if not isinstance(look, Refused)]
    refused = (*listing.refused, *(look for look in looks if isinstance(look, Refused)))
    if not good:
        raise DataError(f"{name}: {_nothing(refused)}")
    identity = [[clip.key, clip.caption, clip.long_caption, digest] for clip, digest in good]
    return FileSource(
        name=name,
        clips=tuple(clip for clip, _ in good),
        refused=refused,
        fingerprint=hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
        media={found.key: found.media for found in listing.found},
    )


def _look(found: Found, captions: bool) -> tuple[Clip, str] | Refused:
    if captions and not found.caption:
        return Refused(name=found.key, reason="has no caption")
    try:
        info = video.probe(found.media)
        digest = found.media.digest()
    except DataError as error:
        return Refused(name=found.key, reason=str(error))
    except OSError as error:
        return Refused(name=found.key, reason=f"can't be read: {error.strerror}")
    clip = Clip(
        key=found.key,
        caption=found.caption or "",
        long_caption=found.long_caption,
        num_frames=info.num_frames,
        height=info.height,
        width=info.width,
        fps=info.fps,
        path=found.media.path,
    )
    return clip, digest


def _nothing(refused: tuple[Refused, ...]) -> str:
    if not refused:
        return f"no videos there ({', '.join(video.SUFFIXES)}, or WebDataset's .tar)"
    return f"none of its {len(refused)} clips can be used; the first: {refused[0].name}: {refused[0].reason}"
