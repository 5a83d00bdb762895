"""What a growth leaves as it is: every file of the source but the weights that grow and what describes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoint import CONFIG_NAME
from .checksums import CHECKSUMS_NAME
from .disguise import OTHER_WEIGHTS
from .record import RECORD_NAME
from .regular import check_link
from .selection import PIPELINE_NAME

if TYPE_CHECKING:
    from .job import Job

_WEIGHT_SUFFIXES = (".safetensors", *OTHER_WEIGHTS)


def carried_files(job: Job) -> list[tuple[Path, Path]]:
    """Every other file of the source, and where it goes in the output.

    Raises:
        CheckpointError: One of them is a link out of the source, whose content nobody meant to publish.
    """
    source = job.source
    if source.path.is_file():
        return list(job.added)
    files = []
    is_carried, counted = carrier(job), source.counted
    for folder, folders, names in os.walk(source.path, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        place = Path(folder).relative_to(source.path)
        for name in sorted(names):
            path = Path(folder) / name
            is_counted = counted is None or (place / name).as_posix() in counted
            if is_counted and is_carried(place / name) and path.is_file():
                check_link(path, source.path)
                files.append((path, place / name))
    return [*files, *job.added]


def carrier(job: Job) -> Callable[[Path], bool]:
    """Whether a file of the source, by its place there, goes into the output as it is."""
    had = job.source.pipeline or {}
    gone = {key for key, value in job.index_edits.items() if key in had and value in (None, [None, None])}
    rewritten = (CHECKSUMS_NAME, *([PIPELINE_NAME] if job.index_edits else []), *job.texts)

    def is_carried(place: Path) -> bool:
        *folders, name = place.parts
        if any(part.startswith(".") for part in place.parts):
            return False
        if not folders and name in rewritten:
            return False
        return not (folders and folders[0] in gone) and not ("/".join(folders) in job.plans and _is_replaced(name))

    return is_carried


def _is_replaced(name: str) -> bool:
    return name in (CONFIG_NAME, RECORD_NAME) or name.endswith(_WEIGHT_SUFFIXES) or ".index." in name
