"""growth.json, the record beside config.json: where a model came from and what has grown.

The trainer reads which tensors are new, `verify` which must be zero, `inspect` the history. It is
what makes "only the new parameters" a fact and not a naming habit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import strict_json
from .errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from .checkpoint import Checkpoint
    from .plan import Plan

RECORD_NAME = "growth.json"
FORMAT = 1
_SAMPLE = 4096


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model before its first growth."""

    class_name: str
    name: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation as it was done."""

    operation: str
    options: Mapping[str, Any]
    index_map: Mapping[str, tuple[int, ...]]
    """Per stack: where block i of the input stands in the output."""
    copied_from: Mapping[str, Mapping[int, int]]
    """Per stack: new block of the output -> the block of the input that it copies."""
    input_fingerprint: str
    made_with: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """A model's growth. The three lists name tensors as they are called in this folder now."""

    base: Base
    steps: tuple[Step, ...]
    new: tuple[str, ...]
    """Tensors that the base does not have."""
    zeroed: tuple[str, ...]
    """Those of them that were written as zeros, so that the function is unchanged."""
    changed: tuple[str, ...]
    """Tensors of the base whose values or shape an operation changed."""

    @classmethod
    def read(cls, path: Path) -> Record:
        """Raises `CheckpointError` if the file is not a record of a known format."""
        data = strict_json.read_object(path)
        if data.get("format") != FORMAT:
            raise CheckpointError(
                f"{path}: record format {data.get('format')!r}, this version of modelgrow reads {FORMAT}"
            )
        try:
            return cls(
                base=Base(**{"class_name" if k == "class" else k: str(v) for k, v in data["base"].items()}),
                steps=tuple(_step(step) for step in data["steps"]),
                new=_names(data["new"]),
                zeroed=_names(data["zeroed"]),
                changed=_names(data["changed"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path}: not a growth record: {error!r}. Restore the file, or remove it") from error

    def to_json(self) -> dict[str, Any]:
        """The record as it is written."""
        return {
            "format": FORMAT,
            "base": {
                "class": self.base.class_name,
                "name": self.base.name,
                "fingerprint": self.base.fingerprint,
            },
            "steps": [
                {
                    "operation": step.operation,
                    "options": dict(step.options),
                    "index_map": {stack: list(places) for stack, places in step.index_map.items()},
                    "copied_from": {
                        stack: {str(new): old for new, old in copies.items()}
                        for stack, copies in step.copied_from.items()
                    },
                    "input_fingerprint": step.input_fingerprint,
                    "made_with": step.made_with,
                }
                for step in self.steps
            ],
            "new": list(self.new),
            "zeroed": list(self.zeroed),
            "changed": list(self.changed),
        }


def extend(checkpoint: Checkpoint, plan: Plan, *, name: str, made_with: str) -> Record:
    """The record of what `plan` makes of `checkpoint`. `name`: what the base is called, a Hub id or a folder's name."""
    fingerprint = fingerprint_of(checkpoint)
    earlier = checkpoint.record
    base = earlier.base if earlier else Base(class_name=plan.class_name, name=name, fingerprint=fingerprint)
    step = Step(
        operation=plan.operation,
        options=plan.options,
        index_map=plan.index_map,
        copied_from=plan.copied_from,
        input_fingerprint=fingerprint,
        made_with=made_with,
    )
    new, zeroed = set(plan.new_names), set(plan.zeroed_names)
    changed: set[str] = set()
    if earlier:
        renamed = plan.renamed
        new |= {renamed[old] for old in earlier.new}
        zeroed |= {renamed[old] for old in earlier.zeroed}
        changed |= {renamed[old] for old in earlier.changed}
    order = [tensor.name for tensor in plan.tensors]
    return Record(
        base=base,
        steps=(*(earlier.steps if earlier else ()), step),
        new=tuple(n for n in order if n in new),
        zeroed=tuple(n for n in order if n in zeroed),
        changed=tuple(n for n in order if n in changed),
    )


def fingerprint_of(checkpoint: Checkpoint) -> str:
    """Tells one set of weights from another without reading all of it.

    SHA-256 over every tensor's name, dtype and shape and up to three samples of 4 KiB of its bytes
    (its beginning, middle and end). Sharding and metadata do not count.
    """
    digest = hashlib.sha256()
    for name in sorted(checkpoint.tensors):
        tensor = checkpoint.tensors[name]
        digest.update(json.dumps([name, tensor.dtype, list(tensor.shape)]).encode())
        with tensor.file.open("rb") as file:
            last = max(tensor.nbytes - _SAMPLE, 0)
            for start in sorted({0, last // 2, last}):
                file.seek(tensor.offset + start)
                digest.update(file.read(min(_SAMPLE, tensor.nbytes - start)))
    return f"sha256-sampled:{digest.hexdigest()}"


def _step(data: Mapping[str, Any]) -> Step:
    return Step(
        operation=str(data["operation"]),
        options=dict(data["options"]),
        index_map={stack: tuple(int(i) for i in places) for stack, places in data["index_map"].items()},
        copied_from={
            stack: {int(new): int(old) for new, old in copies.items()} for stack, copies in data["copied_from"].items()
        },
        input_fingerprint=str(data["input_fingerprint"]),
        made_with=str(data["made_with"]),
    )


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"expected a list of tensor names, found {value!r:.60}")
    return tuple(value)
