"""From what a user types to checkpoints: a pipeline folder, a component folder, a file, or a Hub id."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import strict_json
from .checkpoint import CONFIG_NAME, Checkpoint, has_weights, open_checkpoint
from .disguise import PICKLE_SUFFIXES
from .errors import CheckpointError, SourceError
from .grown import stock_name
from .regular import check_link, names_in

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

PIPELINE_NAME = "model_index.json"
_HUB_ID = re.compile(r"[a-zA-Z0-9][\w.-]*/[a-zA-Z0-9_][\w.-]*", re.ASCII)
_OTHER_WEIGHTS = (*PICKLE_SUFFIXES, ".msgpack", ".h5", ".onnx", ".gguf")


@dataclass(frozen=True, kw_only=True)
class Component:
    """A part of a pipeline that has weights. `checkpoint` is None where they are not safetensors."""

    name: str
    class_name: str
    checkpoint: Checkpoint | None


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was named. A component by itself is one component with the name ""."""

    name: str
    """The Hub id, or the folder's or file's own name."""
    path: Path
    components: tuple[Component, ...]
    pipeline: Mapping[str, Any] | None = None
    """model_index.json, for a pipeline."""


def open_source(
    argument: str, *, config: Path | None = None, variant: str | None = None, revision: str | None = None
) -> Source:
    """Open what a user named.

    Args:
        argument: A path, or a Hub id such as "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", which goes through
            huggingface_hub's download and cache.
        config: config.json for a single file that has none beside it.
        variant: Weights variant, such as "fp16".
        revision: Branch, tag or commit of a Hub id.

    Raises:
        SourceError: Nothing is there, or it has no weights.
        CheckpointError: What is there is damaged.
    """
    path, name = _locate(argument, revision)
    index_path = path / PIPELINE_NAME
    if not os.path.isdir(path) or not os.path.lexists(index_path):
        _refuse_cache_root(path)
        checkpoint = open_checkpoint(path, config=config, variant=variant)
        unknown = "unknown" if checkpoint.config else f"unknown (no {CONFIG_NAME})"
        component = Component(name="", class_name=checkpoint.class_name or unknown, checkpoint=checkpoint)
        return Source(name=name, path=path, components=(component,))
    check_link(index_path, path)
    index = strict_json.read_object(index_path)
    components = tuple(_components(path, index, variant))
    return Source(name=name, path=path, components=components, pipeline=index)


def _locate(argument: str, revision: str | None) -> tuple[Path, str]:
    path = Path(argument)
    if argument and os.path.lexists(path):
        name = Path(os.path.realpath(path)).name
        return path, name if os.path.isdir(path) else path.stem
    if _HUB_ID.fullmatch(argument):
        return _download(argument, revision), argument
    raise SourceError(
        f"{argument[:300]!r}: no such folder or file, and not a Hub id (those look like "
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers)"
    )


def _refuse_cache_root(path: Path) -> None:
    """The Hub's cache has a folder for every model, and the files a level deeper, once for each revision."""
    if not os.path.isdir(path / "snapshots") or not os.path.isdir(path / "blobs"):
        return
    snapshots = [f"{path / 'snapshots' / name}" for name in names_in(path / "snapshots")]
    raise SourceError(
        f"{path}: a model's folder in the Hub cache, which holds its revisions. Name one of them: "
        f"{', '.join(snapshots[:5]) or 'there is none; download the model again'}"
    )


def _download(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(repo_id, revision=revision, ignore_patterns=[f"*{suffix}" for suffix in _OTHER_WEIGHTS])
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(
            f"{repo_id}: not a folder here, and it can't be had from the Hub: {reason} "
            "(a private or gated model needs 'hf auth login')"
        ) from error


def _components(path: Path, index: Mapping[str, Any], variant: str | None) -> list[Component]:
    found = []
    for name, entry in index.items():
        if name.startswith("_") or not _is_component(entry):
            continue
        folder = _component_folder(path, name)
        if not os.path.isdir(folder):
            continue
        if has_weights(folder):
            checkpoint = _open_component(folder, variant)
            if checkpoint.class_name not in (None, entry[1]):
                raise CheckpointError(
                    f"{path / PIPELINE_NAME}: {name} is {entry[1]!r:.100}, its {CONFIG_NAME} says "
                    f"{checkpoint.class_name!r:.100}. One of them is of another model"
                )
            found.append(Component(name=name, class_name=entry[1], checkpoint=checkpoint))
        elif any(file.endswith(_OTHER_WEIGHTS) for file in names_in(folder)):
            found.append(Component(name=name, class_name=entry[1], checkpoint=None))
    return found


def _open_component(folder: Path, variant: str | None) -> Checkpoint:
    # A pipeline rarely has every component in the variant; diffusers too falls back to the plain file.
    if variant and not any(f".{variant}" in file for file in names_in(folder)):
        variant = None
    return open_checkpoint(folder, variant=variant)


def _is_component(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)


def _component_folder(path: Path, name: str) -> Path:
    if not name.isidentifier():
        raise CheckpointError(f"{path / PIPELINE_NAME}: {name!r:.100} is no name for a component's folder")
    folder = path / name
    if os.path.islink(folder):
        raise CheckpointError(
            f"{folder}: a component must be a folder, and this is a link to one. Put a copy in its place "
            "(cp -r --reflink=auto), or grow the component's own folder"
        )
    return folder


def choose(source: Source, names: Sequence[str], growable: Collection[str]) -> dict[str, Checkpoint]:
    """The components to grow, by name: those named, or all whose class is in `growable`.

    Raises:
        SourceError: A name is not there, or nothing can grow.
    """
    by_name = {component.name: component for component in source.components}
    for name in names:
        if name not in by_name:
            raise SourceError(f"{source.name}: has no component {name!r}; it has: {', '.join(by_name) or 'none'}")
    candidates = [by_name[name] for name in names] if names else list(source.components)
    able = [c for c in candidates if stock_name(c.class_name) in growable]
    chosen = {c.name: c.checkpoint for c in able if c.checkpoint is not None}
    if not chosen or (names and len(chosen) < len(candidates)):
        for c in candidates:
            if c.checkpoint is not None and not c.checkpoint.config:
                raise SourceError(
                    f"{c.checkpoint.path}: there is no {CONFIG_NAME} beside it, so its architecture is unknown. "
                    f"Put the model's {CONFIG_NAME} there, or name it with --config"
                )
        what = ", ".join(f"{c.name or 'it'} is {c.class_name}" for c in candidates if c.name not in chosen)
        raise SourceError(
            f"{source.name}: nothing here that can grow ({what or 'no weights'}). "
            f"Known architectures: {', '.join(growable)}"
        )
    for name, checkpoint in chosen.items():
        if stock_name(str(checkpoint.class_name)) not in growable:
            raise SourceError(
                f"{checkpoint.path}: its {CONFIG_NAME} has the class {checkpoint.class_name}, where the pipeline says "
                f"{by_name[name].class_name}. Write the right one as _class_name"
            )
    return chosen
