"""A checkpoint, from its headers alone: what every tensor is called, what it is and where it lies.

Everything that comes from outside is checked here, once: the headers, the shard index, the links,
config.json. Nothing further in needs to doubt it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import strict_json
from .disguise import CONVERT, OTHER_WEIGHTS, PICKLE_SUFFIXES
from .errors import CheckpointError, SourceError
from .files import HERE, Files
from .published import published_class
from .record import RECORD_NAME, Record
from .regular import check_link
from .shards import INDEX_SUFFIX, read_shards
from .tensor import Tensor

__all__ = ["CONFIG_NAME", "INDEX_SUFFIX", "STEMS", "Checkpoint", "find_weights", "has_weights", "open_checkpoint"]

CONFIG_NAME = "config.json"
STEMS = ("diffusion_pytorch_model", "model")
"""Names that diffusers and transformers give to weights, before the variant and the suffix."""

_SHARD = re.compile(r".*-[0-9]+-of-0*([0-9]+)\.safetensors", re.ASCII | re.DOTALL)
_VARIANT = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One model's weights and config. `tensors` are in the order of their bytes, shard by shard."""

    path: Path
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    """config.json, with the class's name where its authors left it out, see `published`; empty where there is none, and
    then nobody knows the architecture."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    record: Record | None = None

    @property
    def class_name(self) -> str | None:
        """The class that config.json names, diffusers' way or transformers'."""
        name = self.config.get("_class_name")
        if name is None:
            name = next(iter(self.config.get("architectures") or ()), None)
        return name

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(tensor.file for tensor in self.tensors.values()))

    @property
    def num_parameters(self) -> int:
        return sum(tensor.num_elements for tensor in self.tensors.values())

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def dtypes(self) -> dict[str, int]:
        """Elements per dtype, the most common first."""
        counts: dict[str, int] = {}
        for tensor in self.tensors.values():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.num_elements
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


def open_checkpoint(
    path: Path | str, *, config: Path | None = None, variant: str | None = None, files: Files = HERE
) -> Checkpoint:
    """Open a component folder, a single .safetensors file, or an index, with its config.

    Args:
        path: The folder or the file.
        config: The config.json of a single file; otherwise the one beside it.
        variant: As in diffusers: "fp16" opens diffusion_pytorch_model.fp16.safetensors.
        files: Where its files are; all of them here by default.

    Raises:
        SourceError: There are no weights.
        CheckpointError: Something in the files is wrong.
    """
    path = Path(path)
    is_folder = files.is_folder(path)
    folder = path if is_folder else path.parent
    weights = find_weights(path, variant, files) if is_folder else _check_suffix(path)
    check_link(weights, folder)
    if weights.name.endswith(".json"):
        tensors, metadata = read_shards(weights, files)
    else:
        (header,) = files.headers([weights])
        tensors, metadata = dict(header.tensors), dict(header.metadata)
    record_path = folder / RECORD_NAME
    has_record = config is None and os.path.lexists(record_path)
    if has_record:
        check_link(record_path, folder)
    return Checkpoint(
        path=path,
        tensors=tensors,
        config=_read_config(config, weights),
        metadata=metadata,
        record=Record.read(record_path) if has_record else None,
    )


def has_weights(folder: Path, files: Files = HERE) -> bool:
    """Whether a folder holds safetensors that `open_checkpoint` would try to open. Raises `SourceError`."""
    return any(_is_weights(name) for name in files.names(folder))


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", INDEX_SUFFIX)) or (".safetensors.index." in name and name.endswith(".json"))


def _read_config(named: Path | None, weights: Path) -> dict[str, Any]:
    path = named or weights.parent / CONFIG_NAME
    if named is None:
        if not os.path.lexists(path):
            return {}
        check_link(path, path.parent)
    elif not os.path.lexists(path):
        raise SourceError(f"{path}: no such file; --config names the config.json of the weights")
    config = strict_json.read_object(path)
    class_name, architectures = config.get("_class_name"), config.get("architectures")
    if class_name is not None and not isinstance(class_name, str):
        raise CheckpointError(f"{path}: _class_name is {class_name!r:.60}, expected the name of a class")
    names = [] if architectures is None else architectures
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path}: architectures is {architectures!r:.60}, expected a list of class names")
    published = published_class(config)
    return config if published is None else {"_class_name": published, **config}


def _check_suffix(path: Path) -> Path:
    if path.name.lower().endswith(PICKLE_SUFFIXES):
        raise SourceError(f"{path}: {CONVERT}")
    if path.name.endswith(".json") and not _is_weights(path.name):
        raise SourceError(f"{path}: a JSON file, not weights. Name its folder, or the .safetensors file in it")
    _refuse_lone_shard(path)
    return path


def _refuse_lone_shard(path: Path) -> None:
    """One of several files, without the index that lists the others, is a part of a model and looks like all of it."""
    part = _SHARD.fullmatch(path.name)
    if part is not None and part[1] != "1":
        raise SourceError(
            f"{path}: one of {part[1]:.20} shards. Name their folder, which must hold all of them and their index "
            f"(a file that ends in {INDEX_SUFFIX})"
        )


def find_weights(folder: Path, variant: str | None, files: Files = HERE) -> Path:
    """A component folder's weights: a file, or the index of its shards. Raises `GrowError` if that is not clear."""
    names = files.names(folder)
    if variant is not None and not _VARIANT.fullmatch(variant):
        raise SourceError(f"--variant {variant!r:.60}: expected a word such as fp16, as it stands in the file's name")
    infix = f".{variant}" if variant else ""
    for stem in STEMS:
        single = f"{stem}{infix}.safetensors"
        index = f"{stem}.safetensors.index{infix}.json"
        if single in names and index in names:
            raise CheckpointError(
                f"{folder}: holds both {single} and {index}, and loaders disagree about which counts. "
                "Remove the stale one"
            )
        for name in (index, single):
            if name in names:
                return folder / name
    others = [name for name in names if name.endswith(".safetensors")]
    indices = [name for name in names if _is_weights(name) and name.endswith(".json")]
    if len(indices) == 1 and not variant and all(map(_SHARD.fullmatch, others)):
        return folder / indices[0]  # of a variant, and nothing else is there
    if others and variant:
        raise SourceError(f"{folder}: has no weights of --variant {variant}; it has: {', '.join(others[:5])}")
    for name in others:
        _refuse_lone_shard(folder / name)
    if len(others) == 1:
        return folder / others[0]
    if others:
        raise SourceError(
            f"{folder}: can't tell which of its files to open ({', '.join(others[:5])}). Name one, or use --variant"
        )
    foreign = [name for name in names if name.lower().endswith(OTHER_WEIGHTS)]
    if foreign:
        is_pickle = foreign[0].lower().endswith(PICKLE_SUFFIXES)
        what = CONVERT if is_pickle else "not a format that is opened here. Take the model's safetensors files"
        raise SourceError(f"{folder}: only {foreign[0]}: {what}")
    raise SourceError(
        f"{folder}: no .safetensors file found, and no model_index.json. Name the folder of a pipeline or of one of "
        "its components, or a .safetensors file"
    )
