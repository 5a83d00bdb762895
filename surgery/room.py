"""How much of the disk an output will take, before it is written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .disk import as_output_error
from .move import can_clone
from .readback import whole_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .segments import Segment
    from .write import FileWork


def room_for(files: Iterable[FileWork], folder: Path, *, link: bool) -> int:
    """Bytes of free room that the files will take in `folder`: links, clones and zeros take none.

    Raises:
        OutputError: Nothing can be written there, not even to see whether it can be cloned to.
    """
    room = _Room(folder)
    try:
        return sum(
            room.taken_by(segment, may_link=link and file.may_link) for file in files for segment in file.segments
        )
    except OSError as error:
        raise as_output_error(error, folder) from error


class _Room:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._devices: dict[Path, int] = {}
        self._clonable: dict[int, bool] = {}

    def taken_by(self, segment: Segment, *, may_link: bool) -> int:
        if segment.is_zeros:
            return 0
        if segment.source is None:
            return segment.nbytes
        device = self._device(segment.source)
        if may_link and device == self._device(self._folder):
            return 0
        start, stop = whole_blocks(segment)
        if not segment.is_congruent or start == stop:
            return segment.nbytes
        if device not in self._clonable:
            self._clonable[device] = can_clone(segment.source, self._folder)
        return segment.nbytes - (stop - start if self._clonable[device] else 0)

    def _device(self, path: Path) -> int:
        if path not in self._devices:
            self._devices[path] = os.stat(path).st_dev
        return self._devices[path]
