"""WebDataset shards: .tar files whose members of one name belong together, `a.mp4` with `a.txt` or `a.json`,
and with control clips such as `a.pose_video.mp4`.

Only the headers are read when a shard is opened; a video is decoded from its place in the archive.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from modelgrow.pipelines.controls import NAMES
from modelgrow.surgery import DataError

from .clip import Refused
from .controls import alone
from .found import LONG_COLUMNS, TEXT_COLUMNS, Found, Listing, column, decode, words
from .media import Media
from .video import SUFFIXES

if TYPE_CHECKING:
    from tarfile import TarInfo

SUFFIX = ".tar"
_MAX_TEXT = 1 << 20


def read_shard(path: Path, key: str) -> Listing:
    """List the clips of a shard. `key`: its name in the source, in front of its clips'.

    Raises:
        DataError: It is no tar archive, or a compressed one. A shard that is cut off gives what it still holds.
    """
    samples: dict[str, dict[str, TarInfo]] = {}
    refused: list[Refused] = []
    try:
        with tarfile.open(path, "r:") as archive:
            try:
                for member in archive:
                    place = PurePosixPath(member.name)
                    stem, _, suffix = place.name.partition(".")
                    if member.isreg() and stem:
                        samples.setdefault((place.parent / stem).as_posix(), {})["." + suffix.lower()] = member
            except tarfile.ReadError as error:
                refused.append(Refused(name=key, reason=f"{error}; only what is before that is used"))
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{key}: not an uncompressed .tar archive: {error}") from error
    found: list[Found] = []
    for stem, members in samples.items():
        kind = next((kind for kind in SUFFIXES if kind in members), None)
        controls = _controls(path, members)
        if kind is None:
            refused += [alone(f"{key}/{stem}.{name}", PurePosixPath(stem).name) for name in controls]
            continue
        name, media = f"{key}/{stem}{kind}", _media(path, members[kind])
        try:
            caption, long_caption = _captions(path, members)
        except DataError as error:
            refused.append(Refused(name=name, reason=str(error)))
            continue
        found.append(Found(key=name, media=media, caption=caption, long_caption=long_caption, controls=controls))
    return Listing(found=tuple(found), refused=tuple(refused))


def _media(path: Path, member: TarInfo) -> Media:
    """Its bytes, as many of them as a shard that is cut off still holds."""
    there = max(path.stat().st_size - member.offset_data, 0)
    return Media(path=path, offset=member.offset_data, nbytes=min(member.size, there))


def _controls(path: Path, members: dict[str, TarInfo]) -> dict[str, Media]:
    """What lies beside a clip as `.pose_video.mp4`."""
    kinds = {name: [f".{name}{kind}" for kind in SUFFIXES if f".{name}{kind}" in members] for name in NAMES}
    return {name: _media(path, members[found[0]]) for name, found in kinds.items() if found}


def _captions(path: Path, members: dict[str, TarInfo]) -> tuple[str | None, str | None]:
    row: dict[str, object] = {}
    if ".json" in members:
        try:
            row = json.loads(_text(path, members[".json"]))
        except (ValueError, RecursionError) as error:
            raise DataError(f"its .json can't be read: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"its .json is {type(row).__name__}, expected an object")
    text = _text(path, members[".txt"]) if ".txt" in members else column(row, TEXT_COLUMNS)
    return words(text), words(column(row, LONG_COLUMNS))


def _text(path: Path, member: TarInfo) -> str:
    if member.size > _MAX_TEXT:
        raise DataError(f"{member.name} has {member.size} bytes, too many for a caption")
    try:
        with Media(path=path, offset=member.offset_data, nbytes=member.size).open() as file:
            return decode(file.read())
    except OSError as error:
        raise DataError(f"{member.name} can't be read: {error.strerror}") from error
