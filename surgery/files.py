"""Where a checkpoint's files are: all of them here, or some of them on the Hub and only named here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .disguise import OTHER_WEIGHTS
from .header import read_header
from .regular import names_in

if TYPE_CHECKING:
    from .header import Header
    from .hub import Repo

Report = Callable[[str], None]
"""Told the name of every file whose header was fetched."""

_AT_ONCE = 8
"""Headers that are fetched side by side: each is a round trip or two, and large models have dozens of shards."""


class Files:
    """A folder's files, all of them here."""

    def names(self, folder: Path) -> list[str]:
        """Names of what is in a folder, sorted. Raises `SourceError` if it can't be listed."""
        return names_in(folder)

    def is_folder(self, path: Path) -> bool:
        return os.path.isdir(path)

    def headers(self, paths: Iterable[Path]) -> Iterator[Header]:
        """Headers of safetensors files, in this order. Raises `CheckpointError`, see `read_header`."""
        return map(read_header, paths)

    @property
    def counted(self) -> frozenset[str] | None:
        """Files that belong to it: paths in the folder, with "/". None for all that is there."""
        return None

    @property
    def elsewhere(self) -> Mapping[str, int]:
        """Files that belong to it and are not here: path in the folder, with "/" -> bytes."""
        return {}


HERE = Files()


class HubFiles(Files):
    """The files of a model on the Hub that count. Those that are not in the cache have names, sizes and headers."""

    def __init__(self, repo: Repo, sizes: Mapping[str, int], report: Report | None = None) -> None:
        self._repo = repo
        self._sizes = sizes
        self._report = report

    def names(self, folder: Path) -> list[str]:
        start = self._start(folder)
        listed = {name[len(start) :].partition("/")[0] for name in self._sizes if name.startswith(start)}
        return sorted(listed.union(names_in(folder) if os.path.isdir(folder) else ()))

    def is_folder(self, path: Path) -> bool:
        start = self._start(path)
        return os.path.isdir(path) or any(name.startswith(start) for name in self._sizes)

    def headers(self, paths: Iterable[Path]) -> Iterator[Header]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(self._header, paths)

    @property
    def counted(self) -> frozenset[str]:
        return frozenset(name for name in self._sizes if not name.endswith(OTHER_WEIGHTS))

    @property
    def elsewhere(self) -> Mapping[str, int]:
        return {name: self._sizes[name] for name in sorted(self.counted) if not (self._repo.folder / name).exists()}

    def _header(self, path: Path) -> Header:
        from .hub import fetch_header

        name = path.relative_to(self._repo.folder).as_posix()
        if os.path.lexists(path) or name not in self._sizes:
            return read_header(path)
        header = fetch_header(self._repo, name)
        if self._report is not None:
            self._report(name)
        return header

    def _start(self, folder: Path) -> str:
        place = folder.relative_to(self._repo.folder).as_posix()
        return "" if place == "." else f"{place}/"
