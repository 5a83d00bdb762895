"""From what a user names to a source of clips."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modelgrow.surgery import DataError
from modelgrow.surgery.hub import is_hub_id

from . import hub
from .files import probe_all
from .folder import read_folder
from .found import Listing, join
from .lists import READERS, read_list
from .shards import SUFFIX, read_shard
from .worlds import WORLDS, world_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .clip import ClipSource

_MAX_WORKERS = 16


def open_clips(
    spec: str,
    *,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    captions: bool = True,
    controls: Mapping[str, bool] | None = None,
    report: Callable[[int, int], None] | None = None,
) -> ClipSource:
    """Open a data set and look into every clip of it.

    Args:
        spec: A folder of videos with .txt captions beside them, or with metadata.jsonl, .csv or .json; such a
            list by itself; a WebDataset shard or a folder of them; "shapes", "shapes:2-3", "shapes:2-3:4096" for
            the small world with that many objects and clips; or a data set's Hub id.
        num_frames, height, width: The size of drawn clips; None is their world's own. Files have theirs.
        captions: Refuse clips without a caption. Models that read no text do without.
        controls: The control clips that a model reads, by name, and whether it needs them: then clips without one
            are refused. One that it doesn't need is read if any clip has it, and then clips without it are refused.
        report: Called with how many files were looked into, and how many there are.

    Raises:
        DataError: There is nothing of that name, or nothing in it can be used.
    """
    check_spec(spec)
    world = world_of(spec)
    needed = [name for name, required in (controls or {}).items() if required]
    if world is not None and needed:
        raise DataError(
            f"{spec}: drawn clips have no control clips, and this model reads {' and '.join(sorted(needed))} beside "
            "each clip; train it on a folder or a list that has them"
        )
    if world is not None:
        return world(spec, num_frames=num_frames, height=height, width=width)
    workers = min(_MAX_WORKERS, 2 * (os.cpu_count() or 1))
    return probe_all(_list(spec), name=spec, captions=captions, controls=controls or {}, workers=workers, report=report)


def check_spec(spec: str) -> None:
    """Raises `DataError` if nothing has that name, or no clips can be in what has it. Nothing is opened."""
    if world_of(spec):
        return
    path = Path(spec).expanduser()
    if path.is_file() and path.suffix.lower() not in (*READERS, SUFFIX):
        raise DataError(f"{path}: expected a folder, a list ({', '.join(READERS)}) or a shard ({SUFFIX})")
    if not (path.is_dir() or path.is_file() or is_hub_id(spec)):
        raise DataError(
            f"{spec}: no such folder or file, no Hub id (those look like owner/name), and none of the worlds "
            f"that need no files ({', '.join(WORLDS)})"
        )


def _list(spec: str) -> Listing:
    path = Path(spec).expanduser()
    if path.is_dir():
        return read_folder(path)
    if not path.is_file():
        return read_folder(hub.download(spec))
    return join([read_list(path) if path.suffix.lower() in READERS else read_shard(path, path.name)])
