"""A source whose clips are files: every video is opened once and looked into."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modelgrow.surgery import DataError

from . import controls as beside
from . import video
from .clip import Clip, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .controls import Beside
    from .found import Found, Listing
    from .media import Media

_SILENT = "has no caption"


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """Clips of a folder, a list, shards, or all of these."""

    name: str
    clips: tuple[Clip, ...]
    refused: tuple[Refused, ...]
    fingerprint: str
    media: Mapping[str, Media]
    """By key."""
    controls: Mapping[str, Mapping[str, Media]]
    """By key and name, of those that are read."""
    found_controls: Mapping[str, int]

    def read(self, clip: Clip, *, num_frames: int, height: int, width: int) -> np.ndarray:
        """See `ClipSource.read`."""
        if num_frames > clip.num_frames:
            raise DataError(f"{clip.key}: has {clip.num_frames} frames, {num_frames} are wanted")
        try:
            return video.read(self.media[clip.key], num_frames=num_frames, height=height, width=width)
        except DataError as error:
            raise DataError(f"{clip.key}: {error}") from error

    def read_control(self, clip: Clip, name: str, *, num_frames: int, height: int, width: int) -> np.ndarray:
        """See `ClipSource.read_control`."""
        media = self.controls[clip.key].get(name)
        if media is None:
            raise DataError(f"{clip.key}: has no {name} that is read")
        if num_frames > clip.num_frames:
            raise DataError(f"{clip.key}: {clip.num_frames} frames of its {name} are read, {num_frames} are wanted")
        try:
            return video.read(media, num_frames=num_frames, height=height, width=width)
        except DataError as error:
            raise DataError(f"{clip.key}: its {name}: {error}") from error


def probe_all(
    listing: Listing,
    *,
    name: str,
    captions: bool,
    controls: Mapping[str, bool],
    workers: int,
    report: Callable[[int, int], None] | None = None,
) -> FileSource:
    """Look into every video of a listing.

    Args:
        listing: What was found; keys are unique.
        name: Of the source.
        captions: Refuse videos without one.
        controls: The control clips that are read, and whether a video without one is of no use.
        workers: Threads that open files.
        report: Called with how many were looked into, and how many there are.

    Raises:
        DataError: Nothing is left.
    """
    names = beside.used(listing.found, controls)
    looks: list[_Looked | Refused] = []
    with ThreadPoolExecutor(workers) as pool:
        for look in pool.map(lambda found: _look(found, captions, names, controls), listing.found):
            looks.append(look)
            if report is not None:
                report(len(looks), len(listing.found))
    good = [look for look in looks if not isinstance(look, Refused)]
    refused = (*listing.refused, *(look for look in looks if isinstance(look, Refused)))
    if not good:
        raise DataError(f"{name}: {_nothing(refused)}")
    return FileSource(
        name=name,
        clips=tuple(look.clip for look in good),
        refused=refused,
        fingerprint=hashlib.sha256(json.dumps([look.identity for look in good]).encode()).hexdigest(),
        media={found.key: found.media for found in listing.found},
        controls={look.clip.key: look.beside.media for look in good},
        found_controls=beside.count(listing.found),
    )


@dataclass(frozen=True, kw_only=True)
class _Looked:
    """A clip, its control clips, and the digest of its file."""

    clip: Clip
    beside: Beside
    digest: str

    @property
    def identity(self) -> list[Any]:
        """What of it a fingerprint depends on. Without control clips it is as it was before there were any."""
        own = [self.clip.key, self.clip.caption, self.clip.long_caption, self.digest]
        return [*own, dict(sorted(self.beside.digests.items()))] if self.beside.digests else own


def _look(found: Found, captions: bool, names: tuple[str, ...], wanted: Mapping[str, bool]) -> _Looked | Refused:
    if captions and not found.caption:
        return Refused(name=found.key, reason=_SILENT)
    try:
        info = video.probe(found.media)
        digest = found.media.digest()
        controls = beside.look(found, info, names, wanted)
    except DataError as error:
        return Refused(name=found.key, reason=str(error))
    except OSError as error:
        return Refused(name=found.key, reason=f"can't be read: {error.strerror}")
    clip = Clip(
        key=found.key,
        caption=found.caption or "",
        long_caption=found.long_caption,
        num_frames=min([info.num_frames, *controls.lengths.values()]),
        height=info.height,
        width=info.width,
        fps=info.fps,
        path=found.media.path,
        controls=tuple(sorted(controls.media)),
        shortest=controls.shorter_than(info.num_frames),
    )
    return _Looked(clip=clip, beside=controls, digest=digest)


def _nothing(refused: tuple[Refused, ...]) -> str:
    if not refused:
        return f"no videos there ({', '.join(video.SUFFIXES)}, or WebDataset's .tar)"
    first = refused[0]
    wanted = "; a .txt of its name beside it or a metadata list has it" if first.reason == _SILENT else ""
    return f"none of its {len(refused)} clips can be used; the first: {first.name}: {first.reason}{wanted}"
