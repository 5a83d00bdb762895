"""What a growth says of the folder that it was taken from, see `packed`: enough to make that folder again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .carried import carried_files, carrier
from .checkpoint import CONFIG_NAME, INDEX_SUFFIX
from .errors import CheckpointError
from .fingerprint import fingerprint_of
from .job import Job, made_with
from .language_model import COMPONENT, TOKENIZER
from .packed import Other, dump, is_plain
from .plan import Plan
from .record import RECORD_NAME

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .source import Source

_SMALL = 1 << 20
"""Files up to this size, in bytes, are known by their SHA-256, so that `apply` can tell a base's other files apart."""


def metadata_of(source: Source, checkpoints: Mapping[str, Checkpoint]) -> str:
    """The value of the growth's key "modelgrow", for these components of a grown model, whose weights are here.

    Raises:
        CheckpointError: A file can't be read, or has a name that no other machine should be asked to write.
    """
    return dump(
        made_with=made_with(),
        components={name: _component(checkpoint) for name, checkpoint in checkpoints.items()},
        others=_others(source, checkpoints),
        pipeline=_pipeline(source, checkpoints),
    )


def _component(checkpoint: Checkpoint) -> dict[str, Any]:
    """What gives the component's folder back, byte for byte."""
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    names = [CONFIG_NAME, RECORD_NAME]
    if checkpoint.path.is_dir() and len(checkpoint.files) > 1:
        names += [path.name for path in sorted(folder.glob("*" + INDEX_SUFFIX))][:1]
    return {
        "fingerprint": fingerprint_of(checkpoint),
        "files": [{"name": _plain(path), "header": _header_text(path)} for path in checkpoint.files],
        "texts": {name: _read_text(folder / name) for name in names},
    }


def _plain(path: Path) -> str:
    if not is_plain(path.name):
        raise CheckpointError(f"{path}: rename the file; a growth names files by letters, digits, dots, - and _")
    return path.name


def _header_text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little")).decode("utf-8")


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error


def _pipeline(source: Source, checkpoints: Mapping[str, Checkpoint]) -> dict[str, Any]:
    """What the growth changed in model_index.json, as it is now."""
    records = [checkpoint.record for checkpoint in checkpoints.values() if checkpoint.record]
    keys = dict.fromkeys(key for record in records for step in record.steps for key in step.pipeline_before)
    if source.pipeline is None:
        return {}
    # An included language model does not come along: whoever applies the growth gets it from where the slot says.
    return {key: [None, None] if key in (COMPONENT, TOKENIZER) else source.pipeline.get(key) for key in keys}


def _others(source: Source, checkpoints: Mapping[str, Checkpoint]) -> dict[str, Other]:
    here = {path.as_posix(): other_of(file) for file, path in other_files(source, checkpoints)}
    there = {place: Other(num_bytes=size) for place, size in others_elsewhere(source, checkpoints).items()}
    return dict(sorted({**here, **there}.items()))


def is_small(num_bytes: int) -> bool:
    """Whether a file of this size is known by its content."""
    return num_bytes <= _SMALL


def other_files(source: Source, checkpoints: Mapping[str, Checkpoint]) -> list[tuple[Path, Path]]:
    """Every file of a source but the weights, configs and records of these components, and its place in the folder."""
    return carried_files(_untouched(source, checkpoints))


def others_elsewhere(source: Source, checkpoints: Mapping[str, Checkpoint]) -> dict[str, int]:
    """Those of them that are still on the Hub: place in the folder -> bytes."""
    is_other = carrier(_untouched(source, checkpoints))
    return {place: size for place, size in source.elsewhere.items() if is_other(Path(place))}


def _untouched(source: Source, checkpoints: Mapping[str, Checkpoint]) -> Job:
    nothing = {
        name: Plan(operation="pack", options={}, class_name=str(checkpoint.class_name), tensors=())
        for name, checkpoint in checkpoints.items()
    }
    return Job(source=source, checkpoints=checkpoints, plans=nothing)


def other_of(path: Path) -> Other:
    """How one of those files is known again."""
    size = path.stat().st_size
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if is_small(size) else None
    return Other(num_bytes=size, sha256=digest)
