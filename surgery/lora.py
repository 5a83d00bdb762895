"""A LoRA that was trained on the base, written so that it applies to the grown model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .anatomy_files import anatomies
from .apply import write_tensors
from .diffsynth_lora import diffusers_names, is_diffsynth_lora
from .errors import CheckpointError
from .grown import stock_name
from .header import read_header
from .layout import output_file
from .lora_keys import LoraTarget, remap_for
from .plan import PlannedTensor
from .shrink import choose_grown
from .staging import staged_file
from .trace import rename

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .anatomy import Anatomy
    from .layout import OutputFile
    from .source import Source
    from .span import Progress
    from .tensor import Tensor

_ADAPTER = re.compile(r"lora|lokr|hada|dora|oft_|boft|\.diff|\.alpha", re.IGNORECASE)
"""What keys of low-rank weights, and of their relatives, are called everywhere."""


@dataclass(frozen=True, kw_only=True)
class Remapping:
    """A LoRA with its keys moved, not yet written."""

    path: Path
    names: Mapping[str, str]
    """Every key -> its new name."""
    file: OutputFile
    tensors: Mapping[str, Tensor]

    @property
    def moved(self) -> dict[str, str]:
        return {key: name for key, name in self.names.items() if key != name}

    def to_json(self) -> dict[str, Any]:
        return {"lora": str(self.path), "tensors": len(self.names), "moved": self.moved}


def grown_models(
    source: Source,
    components: Sequence[str] = (),
    known: Mapping[str, Anatomy] | None = None,
    *,
    may_be_none: bool = False,
) -> dict[str, LoraTarget]:
    """The components of a source that have grown. Raises `SourceError` if none has and there must be one."""
    known = anatomies() if known is None else known
    if may_be_none and not any(part.checkpoint and part.checkpoint.record for part in source.components):
        return {}
    return {
        name: LoraTarget(record=checkpoint.record, anatomy=known.get(checkpoint.record.base.class_name))
        for name, checkpoint in choose_grown(source, components).items()
        if checkpoint.record is not None
    }


def prepare_remap(
    path: Path, models: Mapping[str, LoraTarget], *, classes: Mapping[str, str] | None = None
) -> Remapping:
    """Read a LoRA's header and move its keys; nothing is written.

    Args:
        path: The LoRA. One in DiffSynth's names gets diffusers' names besides.
        models: The components that have grown.
        classes: Classes of all components, where such a LoRA shall be understood.

    Raises:
        CheckpointError: It is no safetensors file, or was trained on another model.
    """
    header = read_header(path)
    keys = list(header.tensors)
    if not any(_ADAPTER.search(key) for key in keys):
        first = f"{keys[0]!r:.200} and the like" if keys else "nothing"
        raise CheckpointError(f"{path}: no LoRA: it holds {first}. Name the LoRA's own file")
    plain = {key: key for key in keys}
    if is_diffsynth_lora(keys):
        plain = diffusers_names(keys, classes or {}, where=str(path))
    moved = remap_for(plain.values(), models) if models else {key: key for key in plain.values()}
    names = {key: moved[plain[key]] for key in keys}
    if len(set(names.values())) != len(names):
        raise CheckpointError(f"{path}: two keys would become one; was it remapped before?")
    contents = [PlannedTensor.copy_of(tensor, key, name=names[key]) for key, tensor in header.tensors.items()]
    metadata = {key: remap_json(value, models, names.values()) for key, value in header.metadata.items()}
    return Remapping(
        path=path,
        names=names,
        file=output_file(path.name, contents, metadata, header.tensors),
        tensors=header.tensors,
    )


def classes_of(source: Source) -> dict[str, str]:
    """The stock class of every component, by name."""
    return {part.name: stock_name(part.class_name) for part in source.components}


def is_foreign(path: Path) -> bool:
    """Whether a LoRA is in DiffSynth's names. Raises `CheckpointError` if it is no safetensors file."""
    return is_diffsynth_lora(read_header(path).tensors)


def write_remapped(
    remapping: Remapping, output: Path, *, overwrite: bool = False, progress: Progress | None = None
) -> Path:
    """Write the file, complete or not at all. Raises `OutputError`."""
    report = progress or (lambda _: None)
    size = remapping.file.num_bytes
    with staged_file(output, inputs=[remapping.path], num_bytes=size, overwrite=overwrite) as place:
        write_tensors(place, remapping.file, remapping.tensors, report)
    return output


def remap_json(text: str, models: Mapping[str, LoraTarget], keys: Iterable[str]) -> str:
    """A value of the metadata. Names of blocks move where it is JSON that holds some: rank_pattern, target_modules.

    Anything else, and numbers of blocks inside regular expressions, stay as they are.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(value, dict):
        return text
    found = remap_value(value, models, keys)
    return text if found == value else json.dumps(found, ensure_ascii=False)


def remap_value(value: dict[str, Any], models: Mapping[str, LoraTarget], keys: Iterable[str]) -> dict[str, Any]:
    """A LoRA's settings, such as PEFT's config, with the names and numbers of blocks moved.

    target_modules becomes the modules that the LoRA has: "to_q" alone would mean the new blocks' too.

    Args:
        value: As diffusers writes them: "transformer.rank_pattern" and so on.
        models: The components that have grown.
        keys: Of the LoRA, moved already.
    """
    keys = list(keys)
    found: dict[str, Any] = _walk(value, lambda name: _move_leniently(name, models))
    for key, item in found.items():
        numbers = isinstance(item, list) and item and all(type(number) is int for number in item)
        if key.endswith("layers_to_transform") and numbers:
            found[key] = [_place(number, models, key) for number in item]
        component = key.removesuffix(".target_modules")
        if component != key and (component in models or "" in models):
            found[key] = _modules(keys, f"{component}.") or item
    return found


def _modules(keys: Iterable[str], head: str) -> list[str]:
    names = (key.removeprefix(head).rpartition(".lora_")[0] for key in keys if key.startswith(head))
    return sorted({name for name in names if name})


def _walk(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {change(key): _walk(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _move_leniently(name: str, models: Mapping[str, LoraTarget]) -> str:
    """Settings hold all kinds of text; what is not the name of a block stays."""
    try:
        return remap_for([name], models)[name]
    except CheckpointError:
        return name


def _place(number: int, models: Mapping[str, LoraTarget], key: str) -> int:
    stacks = {
        (name, stack) for name, grown in models.items() for step in grown.record.steps for stack in step.index_map
    }
    places = set()
    for name, stack in stacks:
        moved = rename(f"{stack}.{number}.x", models[name].record.steps)
        places.add(int(moved[len(stack) + 1 :].partition(".")[0]))
    if len(places) != 1:
        raise CheckpointError(f"{key} in the metadata does not say which stack's blocks it means; remove that key")
    return places.pop()
