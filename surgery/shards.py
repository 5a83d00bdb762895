"""A checkpoint in shards, by its index: which tensor is in which file, said twice, and both must agree.

The index is never trusted: a shard is a regular .safetensors file in the index's own folder, every
tensor that the index names is in the shard that it says, and no shard holds another. What else is
in the folder, such as stale shards of an older save, is not read. `total_size` is not used: a wrong
one does no harm, and the output gets the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .errors import CheckpointError
from .header import MAX_HEADER
from .regular import check_link, read_regular
from .scan import Scanner

if TYPE_CHECKING:
    from pathlib import Path

    from .files import Files
    from .header import Header
    from .tensor import Tensor

INDEX_SUFFIX = ".safetensors.index.json"

MAX_INDEXED = 200_000
"""Tensors that an index may name; the largest published models have half as many."""

_MAX_NAME = 65_536
_MAX_OTHER = 1_000_000


def read_shards(index_path: Path, files: Files) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors that an index names, shard by shard, and the shards' metadata.

    Raises:
        CheckpointError: The index or a shard is damaged, or they do not agree.
        SourceError: A shard is not here and can't be had.
    """
    folder = index_path.parent
    weight_map = _read_weight_map(index_path)
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    names = sorted(set(weight_map.values()))
    for name in names:
        check_link(folder / name, folder)
    for name, header in zip(names, files.headers(folder / name for name in names), strict=True):
        _check_shard(header, name, weight_map, index_path)
        tensors.update(header.tensors)
        metadata.update(header.metadata)
    missing = next((key for key in weight_map if key not in tensors), None)
    if missing is not None:
        raise CheckpointError(
            f"{index_path}: {missing!r:.200} should be in {weight_map[missing]:.200}, and is not there"
        )
    return tensors, metadata


def _read_weight_map(path: Path) -> dict[str, str]:
    scanner = Scanner(read_regular(path, limit=MAX_HEADER), where=str(path))
    keys: set[str] = set()
    found: dict[str, str] | None = None
    for key in scanner.members(limit=_MAX_NAME):
        if key in keys:
            raise scanner.twice(key)
        keys.add(key)
        if key == "weight_map" and scanner.next_is(b"{"):
            found = _names(scanner, path)
        else:
            scanner.value(limit=_MAX_OTHER)
    scanner.end()
    if found is None:
        raise CheckpointError(f"{path}: weight_map is missing or not an object")
    if not found:
        raise CheckpointError(f"{path}: weight_map names no tensor. Download the index again")
    return found


def _names(scanner: Scanner, path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    files: dict[str, str] = {}
    for key in scanner.members(limit=_MAX_NAME):
        if key in found:
            raise scanner.twice(key)
        if len(found) == MAX_INDEXED:
            raise CheckpointError(f"{path}: names more than {MAX_INDEXED} tensors; no model has so many")
        value = scanner.string(limit=_MAX_NAME) if scanner.next_is(b'"') else scanner.value(limit=_MAX_NAME)
        if not isinstance(value, str) or not value.endswith(".safetensors") or any(c in value for c in "/\\\0:"):
            raise CheckpointError(
                f"{path}: weight_map names {value!r:.80}; a shard is a .safetensors file in the same folder"
            )
        found[key] = files.setdefault(value, value)
    return found


def _check_shard(header: Header, name: str, weight_map: Mapping[str, str], index_path: Path) -> None:
    for key in header.tensors:
        if key not in weight_map:
            raise CheckpointError(f"{index_path}: {name} holds {key!r:.200}, which the index does not list")
        if weight_map[key] != name:
            raise CheckpointError(f"{index_path}: {key!r:.200} is in {name}, the index says {weight_map[key]:.200}")
