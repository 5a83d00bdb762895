"""A checkpoint, from its headers alone: what every tensor is called, what it is and where it lies.

Everything that comes from outside is checked here, once: the headers, the shard index, the links,
config.json. Nothing further in needs to doubt it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import strict_json
from .errors import CheckpointError, SourceError
from .header import Header, Tensor, read_header
from .record import RECORD_NAME, Record

CONFIG_NAME = "config.json"
INDEX_SUFFIX = ".safetensors.index.json"
STEMS = ("diffusion_pytorch_model", "model")
"""Names that diffusers and transformers give to weights, before the variant and the suffix."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One model's weights and config. `tensors` are in the order of their bytes, shard by shard."""

    path: Path
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)
    record: Record | None = None

    @property
    def class_name(self) -> str | None:
        """The class that config.json names, diffusers' way or transformers'."""
        name = self.config.get("_class_name")
        if name is None and isinstance(self.config.get("architectures"), list):
            name = next(iter(self.config["architectures"]), None)
        return name if isinstance(name, str) else None

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


def open_checkpoint(path: Path, *, config: Path | None = None, variant: str | None = None) -> Checkpoint:
    """Open a component folder, or a single .safetensors file with its config.

    Args:
        path: The folder or the file.
        config: The config.json of a single file; otherwise the one beside it.
        variant: As in diffusers: "fp16" opens diffusion_pytorch_model.fp16.safetensors.

    Raises:
        SourceError: There are no weights.
        CheckpointError: Something in the files is wrong.
    """
    folder = path if path.is_dir() else path.parent
    weights = _find_weights(path, variant) if path.is_dir() else path
    if weights.name.endswith(".json"):
        tensors, metadata = _open_shards(weights)
    else:
        header = _open_file(weights, folder)
        tensors, metadata = dict(header.tensors), dict(header.metadata)
    config_path = config or folder / CONFIG_NAME
    record_path = folder / RECORD_NAME
    return Checkpoint(
        path=path,
        tensors=tensors,
        config=_read_config(config_path, weights),
        metadata=metadata,
        record=Record.read(record_path) if record_path.is_file() and config is None else None,
    )


def has_weights(folder: Path) -> bool:
    """Whether a folder holds safetensors that `open_checkpoint` would try to open."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("*" + INDEX_SUFFIX))


def _read_config(path: Path, weights: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SourceError(
            f"{weights}: there is no {CONFIG_NAME} beside it, so its architecture is unknown. "
            f"Put the model's {CONFIG_NAME} there, or name it with --config"
        )
    return strict_json.read_object(path)


def _find_weights(folder: Path, variant: str | None) -> Path:
    infix = f".{variant}" if variant else ""
    for stem in STEMS:
        single = folder / f"{stem}{infix}.safetensors"
        index = folder / (f"{stem}.safetensors.index{infix}.json" if variant else stem + INDEX_SUFFIX)
        if single.exists() and index.exists():
            raise CheckpointError(
                f"{folder}: holds both {single.name} and {index.name}, and loaders disagree about which counts. "
                "Remove the stale one"
            )
        for found in (index, single):
            if found.exists() or found.is_symlink():
                return found
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1 and not variant:
        return others[0]
    if others:
        names = ", ".join(other.name for other in others[:5])
        raise SourceError(f"{folder}: can't tell which of its files to open ({names}). Name one, or use --variant")
    pickles = sorted(p.name for s in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(s))
    if pickles:
        raise SourceError(
            f"{folder}: only pickled weights ({pickles[0]}), which can run code and are never opened here. "
            "Load them with diffusers where you trust them, and save_pretrained writes safetensors"
        )
    raise SourceError(f"{folder}: no .safetensors file found")


def _open_shards(index_path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    folder = index_path.parent
    weight_map = strict_json.read_object(index_path).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index_path}: weight_map is missing or not an object")
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for name in sorted({_shard_name(value, index_path) for value in weight_map.values()}):
        header = _open_file(folder / name, folder)
        _check_shard(header, name, weight_map, index_path)
        tensors.update(header.tensors)
        metadata.update(header.metadata)
    missing = [key for key in weight_map if key not in tensors]
    if missing:
        raise CheckpointError(f"{index_path}: {missing[0]!r} should be in {weight_map[missing[0]]}, and is not there")
    return tensors, metadata


def _shard_name(value: Any, index_path: Path) -> str:
    plain = isinstance(value, str) and value.endswith(".safetensors") and not any(c in value for c in "/\\\0:")
    if not plain:
        raise CheckpointError(
            f"{index_path}: weight_map names {value!r:.80}; a shard is a .safetensors file in the same folder"
        )
    return str(value)


def _check_shard(header: Header, name: str, weight_map: Mapping[str, Any], index_path: Path) -> None:
    for key in header.tensors:
        if key not in weight_map:
            raise CheckpointError(f"{index_path}: {name} holds {key!r}, which the index does not list")
        if weight_map[key] != name:
            raise CheckpointError(f"{index_path}: {key!r} is in {name}, the index says {weight_map[key]}")


def _open_file(path: Path, folder: Path) -> Header:
    _check_link(path, folder)
    return read_header(path)


def _check_link(path: Path, folder: Path) -> None:
    """Links are followed inside the folder and into the Hub cache it belongs to, and nowhere else."""
    if not path.is_symlink():
        return
    try:
        target = path.resolve(strict=True)
        home = folder.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: a link that leads nowhere. Download the file again") from error
    if target.is_relative_to(home):
        return
    blobs = target.parent
    if blobs.name == "blobs" and (
        home.is_relative_to(blobs.parent / "snapshots") or blobs.parent.name[:8] == "models--"
    ):
        return
    raise CheckpointError(
        f"{path}: links out of its folder, to {target}. Only links inside the folder and into the Hub cache are "
        "followed: name the real folder, or copy the file"
    )
