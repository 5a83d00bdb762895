"""From what a user types to checkpoints: a pipeline folder, a component folder, a file, or a Hub id."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import strict_json
from .checkpoint import CONFIG_NAME, Checkpoint, has_weights, open_checkpoint
from .disguise import CONVERT, OTHER_WEIGHTS
from .errors import CheckpointError, SourceError
from .files import HERE, Files, Report
from .grown import stock_name
from .hub import is_hub_id
from .regular import check_link, names_in
from .selection import PIPELINE_NAME
from .tensor import is_here

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from .tensor import Tensor

__all__ = ["PIPELINE_NAME", "Component", "Source", "choose", "components_of", "open_source"]

_HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface|hf)\.co/([\w.-]+/[\w.-]+)", re.ASCII)


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
    commit: str | None = None
    """Of a Hub id."""
    counted: frozenset[str] | None = None
    """Files of a model on the Hub that belong to it: paths in the folder. None where all that is there does."""
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    """Those of them that were not downloaded, and their bytes. A plan needs none."""

    def named(self, names: Iterable[str]) -> dict[str, Component]:
        """All components by their names, with these among them. Raises `SourceError` if one is not."""
        by_name = {component.name: component for component in self.components}
        for name in names:
            if name not in by_name:
                has = f"it has: {', '.join(by_name)}" if self.pipeline is not None else "it is one by itself"
                raise SourceError(f"{self.name}: has no component {name!r}; {has}")
        return by_name

    def holding(self, tensors: Iterable[Tensor]) -> dict[str, int]:
        """The files still on the Hub that hold these tensors: path in the folder -> bytes."""
        files = {tensor.file for tensor in tensors if not is_here([tensor])}
        places = {file.relative_to(self.path).as_posix() for file in files}
        return {place: size for place, size in self.elsewhere.items() if place in places}


def open_source(
    argument: str | Path,
    *,
    config: Path | None = None,
    variant: str | None = None,
    revision: str | None = None,
    headers_only: bool = False,
    fetch: Collection[str] = (),
    report: Report | None = None,
) -> Source:
    """Open what a user named.

    Args:
        argument: A path, or a Hub id such as "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", which goes through
            huggingface_hub's download and cache.
        config: config.json for a single file that has none beside it.
        variant: Weights variant, such as "fp16".
        revision: Branch, tag or commit of a Hub id.
        headers_only: Of a Hub id's weights that are not in the cache, fetch the headers alone. That is enough for
            `inspect` and for a plan, which can be shown and not executed.
        fetch: Files to download even so: paths in the folder, such as a job's `missing` has.
        report: Told the name of every file whose header is fetched.

    Raises:
        SourceError: Nothing is there, or it has no weights, or the Hub is needed and out of reach.
        CheckpointError: What is there is damaged.
    """
    argument = os.fspath(argument)
    if not (argument and os.path.lexists(argument)):
        if not is_hub_id(argument):
            page = _HUB_PAGE.match(argument)
            example = page[1] if page else "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
            raise SourceError(
                f"{argument[:300]!r}: no such folder or file, and not a Hub id (those look like {example:.200})"
            )
        from .hub_source import files_of

        path, files = files_of(argument, revision, variant, headers_only=headers_only, fetch=fetch, report=report)
        source = _open(path, argument, files, config, variant)
        return replace(source, commit=path.name, counted=files.counted, elsewhere=files.elsewhere)
    path = Path(argument)
    name = Path(os.path.realpath(path)).name
    return _open(path, name if os.path.isdir(path) else path.stem, HERE, config, variant)


def _open(path: Path, name: str, files: Files, config: Path | None, variant: str | None) -> Source:
    index_path = path / PIPELINE_NAME
    if not os.path.isdir(path) or not os.path.lexists(index_path):
        _refuse_cache_root(path)
        _refuse_parent(path, files)
        checkpoint = open_checkpoint(path, config=config, variant=variant, files=files)
        unknown = "unknown" if checkpoint.config else f"unknown (no {CONFIG_NAME})"
        component = Component(name="", class_name=checkpoint.class_name or unknown, checkpoint=checkpoint)
        return Source(name=name, path=path, components=(component,))
    check_link(index_path, path)
    index = strict_json.read_object(index_path)
    components = tuple(_components(path, index, variant, files))
    return Source(name=name, path=path, components=components, pipeline=index)


def _refuse_cache_root(path: Path) -> None:
    """The Hub's cache has a folder for every model, and the files a level deeper, once for each revision."""
    if not os.path.isdir(path / "snapshots") or not os.path.isdir(path / "blobs"):
        return
    snapshots = [f"{path / 'snapshots' / name}" for name in names_in(path / "snapshots")]
    raise SourceError(
        f"{path}: a model's folder in the Hub cache, which holds its revisions. Name one of them: "
        f"{', '.join(snapshots[:5]) or 'there is none; download the model again'}"
    )


def _refuse_parent(path: Path, files: Files) -> None:
    """A folder of pipelines: a run's, say, or the one that models were downloaded to."""
    if not os.path.isdir(path) or has_weights(path, files):
        return
    inside = [str(path / name) for name in names_in(path) if os.path.lexists(path / name / PIPELINE_NAME)]
    if inside:
        raise SourceError(f"{path}: no model itself. Name one of those in it: {', '.join(inside[:5])}")


def components_of(index: Mapping[str, Any]) -> dict[str, str]:
    """What model_index.json says: name of a component -> its class."""
    return {
        name: entry[1]
        for name, entry in index.items()
        if not name.startswith("_")
        and isinstance(entry, list)
        and len(entry) == 2
        and all(isinstance(part, str) for part in entry)
    }


def _components(path: Path, index: Mapping[str, Any], variant: str | None, files: Files) -> list[Component]:
    found = []
    for name, class_name in components_of(index).items():
        folder = _component_folder(path, name)
        if not files.is_folder(folder):
            continue
        if has_weights(folder, files):
            checkpoint = _open_component(folder, variant, files)
            if checkpoint.class_name not in (None, class_name):
                raise CheckpointError(
                    f"{path / PIPELINE_NAME}: {name} is {class_name!r:.100}, its {CONFIG_NAME} says "
                    f"{checkpoint.class_name!r:.100}. One of them is of another model"
                )
            found.append(Component(name=name, class_name=class_name, checkpoint=checkpoint))
        elif any(file.endswith(OTHER_WEIGHTS) for file in files.names(folder)):
            found.append(Component(name=name, class_name=class_name, checkpoint=None))
    return found


def _open_component(folder: Path, variant: str | None, files: Files) -> Checkpoint:
    # A pipeline rarely has every component in the variant; diffusers too falls back to the plain file.
    if variant and not any(f".{variant}" in file for file in files.names(folder)):
        variant = None
    return open_checkpoint(folder, variant=variant, files=files)


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
    by_name = source.named(names)
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
            if c.checkpoint is None and stock_name(c.class_name) in growable:
                raise SourceError(f"{source.name}: {c.name} has no safetensors: {CONVERT}")
        what = ", ".join(f"{c.name or 'it'} is {c.class_name}" for c in candidates if c.name not in chosen)
        others = [c.name for c in source.components if c.checkpoint and stock_name(c.class_name) in growable]
        if others:
            raise SourceError(f"{source.name}: {what}, which can't grow; what can is {', '.join(others)}")
        raise SourceError(
            f"{source.name}: nothing here that can grow ({what or 'no weights'}). "
            f"Known architectures: {', '.join(growable)}; another takes a TOML file that declares it, see "
            "docs/anatomy.md"
        )
    for name, checkpoint in chosen.items():
        if stock_name(str(checkpoint.class_name)) not in growable:
            raise SourceError(
                f"{checkpoint.path}: its {CONFIG_NAME} has the class {checkpoint.class_name}, where the pipeline says "
                f"{by_name[name].class_name}. Write the right one as _class_name"
            )
    return chosen
