"""A growth by itself: one safetensors file of what a grown model has and its base has not.

Its tensors are called as in the grown model, with the component's name before them where it is a
pipeline: "transformer.blocks.30.attn1.to_q.weight". The key "modelgrow" of its metadata holds JSON:

    format       1
    made_with    the program that packed it
    components   name ("" for a model by itself) -> what gives its folder back, byte for byte:
        fingerprint   of the grown weights
        files         the weights' files: name, and header as text
        texts         config.json, growth.json and the shards' index, as text
    pipeline     keys of model_index.json that the growth changes -> their values; only where there are any
    others       every other file of the grown folder: path -> bytes, and sha256 where it is small

Such a file comes from strangers. Everything in it is checked here, once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import strict_json
from .checkpoint import CONFIG_NAME, INDEX_SUFFIX, Checkpoint
from .errors import CheckpointError
from .foreign import as_bytes, as_object, as_text, parse_layout
from .header import read_header
from .index_check import check_edits
from .record import RECORD_NAME, Record
from .trace import rename

if TYPE_CHECKING:
    from .tensor import Tensor

GROWTH_NAME = "growth.safetensors"
KEY = "modelgrow"
FORMAT = 1
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class PackedFile:
    """A file of the grown model's weights: all that comes before its data, and what the data are."""

    name: str
    header: bytes
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    """Name -> dtype and shape, in the order of their bytes."""


@dataclass(frozen=True, kw_only=True)
class PackedComponent:
    """One grown component."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    record: Record
    fingerprint: str
    files: tuple[PackedFile, ...]
    texts: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    """What the growth holds of it, by the grown model's names."""

    @property
    def expected(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Every tensor of the grown component: name -> dtype and shape."""
        return {name: what for file in self.files for name, what in file.tensors.items()}

    def from_base(self, base_names: Iterable[str], *, base: str) -> dict[str, str]:
        """The tensors that the growth does not hold -> what they are called in the base.

        Args:
            base_names: All tensors of the base.
            base: What the base is called, for the message.

        Raises:
            CheckpointError: Neither has a tensor that the grown model needs, or the base has too many.
        """
        found: dict[str, str] = {}
        for name in base_names:
            other = found.setdefault(rename(name, self.record.steps), name)
            if other != name:
                raise CheckpointError(f"{other!r} and {name!r} of {base} would stand in the same place")
        needed = [name for name in self.expected if name not in self.tensors]
        for name in needed:
            if name not in found:
                raise CheckpointError(f"the grown model needs {name!r}, which neither the growth nor {base} has")
        return {name: found[name] for name in needed}


@dataclass(frozen=True, kw_only=True)
class Other:
    """A file of the grown folder that the growth does not hold. `sha256` is known of small ones."""

    num_bytes: int
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A growth, opened and checked."""

    path: Path
    made_with: str
    components: Mapping[str, PackedComponent]
    others: Mapping[str, Other]
    pipeline: Mapping[str, Any]
    """Keys of model_index.json that the growth changes -> their values; None for one that goes."""


def key_of(component: str, name: str) -> str:
    """What a tensor of a component is called in the growth."""
    return f"{component}.{name}" if component else name


def is_plain(name: str) -> bool:
    """Whether a file name is one that can do no harm anywhere."""
    return _PLAIN.fullmatch(name) is not None


def read_packed(path: Path) -> Packed:
    """Open a growth and check all of it but its tensors' values.

    Raises:
        CheckpointError: It is damaged, is no growth, or asks for something that a growth may not ask for.
    """
    header = read_header(path)
    if KEY not in header.metadata:
        raise CheckpointError(f"{path}: no growth: its metadata have no key {KEY!r}. 'grow pack' makes such files")
    where = f"{path}: {KEY}"
    data = strict_json.parse_object(as_bytes(header.metadata[KEY], where), where=where)
    if data.get("format") != FORMAT:
        raise CheckpointError(f"{where}: format {data.get('format')!r}, this version of modelgrow reads {FORMAT}")
    components = as_object(data.get("components"), f"{where}: components")
    if not components or ("" in components and len(components) > 1):
        raise CheckpointError(f"{where}: components must be one model, or a pipeline's by name")
    parts = {name: _component(name, value, header.tensors, f"{where}: {name!r}") for name, value in components.items()}
    unknown = set(header.tensors) - {key_of(name, key) for name, part in parts.items() for key in part.tensors}
    if unknown:
        raise CheckpointError(f"{path}: {sorted(unknown)[0]!r} belongs to no component of the growth")
    return Packed(
        path=path,
        made_with=as_text(data.get("made_with"), f"{where}: made_with"),
        components=parts,
        others=_others(data.get("others"), f"{where}: others"),
        pipeline=check_edits(as_object(data.get("pipeline", {}), f"{where}: pipeline"), f"{where}: pipeline"),
    )


def _component(name: str, value: Any, tensors: Mapping[str, Tensor], where: str) -> PackedComponent:
    if name and not name.isidentifier():
        raise CheckpointError(f"{where} is no name for a component's folder")
    entry = as_object(value, where)
    texts = _texts(entry.get("texts"), where)
    config = strict_json.parse_object(texts[CONFIG_NAME].encode(), where=f"{where}: {CONFIG_NAME}")
    record_data = strict_json.parse_object(texts[RECORD_NAME].encode(), where=f"{where}: {RECORD_NAME}")
    record = Record.parse(record_data, where=f"{where}: {RECORD_NAME}")
    if not record.steps:
        raise CheckpointError(f"{where}: {RECORD_NAME} has no steps, so nothing has grown")
    files = _files(entry.get("files"), where)
    expected = {key: what for file in files for key, what in file.tensors.items()}
    if len(expected) != sum(len(file.tensors) for file in files):
        raise CheckpointError(f"{where}: two of its files hold the same tensor")
    held = {key: tensors[key_of(name, key)] for key in expected if key_of(name, key) in tensors}
    for key, tensor in held.items():
        if (tensor.dtype, tensor.shape) != expected[key]:
            raise CheckpointError(
                f"{where}: {key!r} is {tensor.dtype} {list(tensor.shape)}, the file it belongs to says "
                f"{expected[key][0]} {list(expected[key][1])}"
            )
    return PackedComponent(
        name=name,
        class_name=str(Checkpoint(path=Path(), tensors={}, config=config).class_name),
        config=config,
        record=record,
        fingerprint=as_text(entry.get("fingerprint"), f"{where}: fingerprint"),
        files=files,
        texts=texts,
        tensors=held,
    )


def _texts(value: Any, where: str) -> dict[str, str]:
    texts = {name: as_text(text, f"{where}: {name}") for name, text in as_object(value, f"{where}: texts").items()}
    for name in texts:
        if name not in (CONFIG_NAME, RECORD_NAME) and not (name.endswith(INDEX_SUFFIX) and is_plain(name)):
            raise CheckpointError(f"{where}: a growth may not bring a file called {name!r:.80}")
    for name in (CONFIG_NAME, RECORD_NAME):
        if name not in texts:
            raise CheckpointError(f"{where}: {name} is missing")
    return texts


def _files(value: Any, where: str) -> tuple[PackedFile, ...]:
    if not isinstance(value, list) or not value:
        raise CheckpointError(f"{where}: files must be a list of the weights' files, found {value!r:.60}")
    files = tuple(_file(as_object(item, f"{where}: files"), where) for item in value)
    if len({file.name.lower() for file in files}) != len(files):
        raise CheckpointError(f"{where}: two of its files have the same name")
    return files


def _file(entry: Mapping[str, Any], where: str) -> PackedFile:
    name = as_text(entry.get("name"), f"{where}: a file's name")
    if not is_plain(name) or not name.endswith(".safetensors"):
        raise CheckpointError(f"{where}: weights can't be called {name!r:.80}; expected a plain name, x.safetensors")
    text = as_text(entry.get("header"), f"{where}: {name}: header").encode()
    tensors = parse_layout(text, where=f"{where}: {name}: header")
    return PackedFile(name=name, header=len(text).to_bytes(8, "little") + text, tensors=tensors)


def _others(value: Any, where: str) -> dict[str, Other]:
    found = {}
    for path, item in as_object(value, where).items():
        entry = as_object(item, f"{where}: {path!r:.80}")
        size, digest = entry.get("bytes"), entry.get("sha256")
        if type(size) is not int or not (digest is None or isinstance(digest, str)):
            raise CheckpointError(f"{where}: {path!r:.80}: expected bytes and perhaps sha256, found {entry!r:.80}")
        found[as_text(path, where)] = Other(num_bytes=size, sha256=digest)
    return found


def dump(
    *,
    made_with: str,
    components: Mapping[str, Mapping[str, Any]],
    others: Mapping[str, Other],
    pipeline: Mapping[str, Any],
) -> str:
    """The value of the key "modelgrow"."""
    files = {
        path: {"bytes": other.num_bytes} | ({"sha256": other.sha256} if other.sha256 else {})
        for path, other in others.items()
    }
    data = {"format": FORMAT, "made_with": made_with, "components": components, "others": files}
    data |= {"pipeline": pipeline} if pipeline else {}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
