"""Folders: a list in it, or else every video and shard below it, captions and control clips beside the videos."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modelgrow.surgery import DataError

from .clip import Refused
from .controls import alone, name_of
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
    files = list(_files(folder))
    beside = _controls(files)
    clips = [path for path in files if name_of(path.name) is None]
    left = set(beside) - {path.with_suffix("") for path in clips}
    refused = [alone(path.relative_to(folder).as_posix(), stem.name) for stem in left for path in beside[stem].values()]
    return join(
        [
            *(_look(path, path.relative_to(folder).as_posix(), beside.get(path.with_suffix(""), {})) for path in clips),
            Listing(refused=tuple(sorted(refused, key=lambda item: item.name))),
        ]
    )


def _controls(files: list[Path]) -> dict[Path, dict[str, Path]]:
    """By the clip's path without its suffix, and by their own names."""
    beside: dict[Path, dict[str, Path]] = {}
    for path in files:
        named = name_of(path.name)
        if named is not None:
            beside.setdefault(path.with_name(named[0]), {}).setdefault(named[1], path)
    return beside


def _look(path: Path, key: str, controls: dict[str, Path]) -> Listing:
    try:
        if path.suffix.lower() == SUFFIX:
            return read_shard(path, key)
        beside = {name: _media(control) for name, control in controls.items()}
        return Listing(found=(Found(key=key, media=_media(path), caption=_caption(path), controls=beside),))
    except OSError as error:
        return Listing(refused=(Refused(name=key, reason=f"can't be read: {error.strerror}"),))
    except DataError as error:
        return Listing(refused=(Refused(name=key, reason=str(error)),))


def _media(path: Path) -> Media:
    return Media(path=path, nbytes=path.stat().st_size)


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
