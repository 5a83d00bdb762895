"""Folders: a list in it, or else every video and shard below it, captions in .txt files beside the videos."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modelgrow.surgery import DataError

from .clip import Refused
from .found import Found, Listing, decode, join, words
from .lists import read_list
from .media import Media
from .shards import SUFFIX, read_shard
from .video import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTS = ("metadata.jsonl", "metadata.csv", "metadata.json")


def read_folder(folder: Path) -> Listing:
    """List the clips of a folder.

    Raises:
        DataError: It can't be read, or has two lists.
    """
    lists = [folder / name for name in LISTS if (folder / name).is_file()]
    if len(lists) > 1:
        names = " and ".join(path.name for path in lists)
        raise DataError(f"{folder}: has {names}; name the one to use, as {lists[0]}")
    if lists:
        return join([read_list(lists[0])])
    return join(_look(path, path.relative_to(folder).as_posix()) for path in _files(folder))


def _look(path: Path, key: str) -> Listing:
    try:
        if path.suffix.lower() == SUFFIX:
            return read_shard(path, key)
        media = Media(path=path, nbytes=path.stat().st_size)
        return Listing(found=(Found(key=key, media=media, caption=_caption(path)),))
    except OSError as error:
        return Listing(refused=(Refused(name=key, reason=f"can't be read: {error.strerror}"),))
    except DataError as error:
        return Listing(refused=(Refused(name=key, reason=str(error)),))


def _caption(video: Path) -> str | None:
    text = video.with_suffix(".txt")
    return words(decode(text.read_bytes())) if text.is_file() else None


def _files(folder: Path) -> Iterator[Path]:
    """Videos and shards, in order. Hidden files are none: macOS leaves a `._a.mp4` beside every a.mp4."""

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: can't be read: {error.strerror}") from error

    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real in seen:  # a link to a folder above
            continue
        seen.add(real)
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in (*SUFFIXES, SUFFIX):
                yield Path(place, name)
