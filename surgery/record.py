"""growth.json, the record beside config.json: where a model came from and what has grown.

The trainer reads which tensors are new, `verify` which must be zero, `shrink` how to go back. It is
what makes "only the new parameters" a fact and not a naming habit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import strict_json
from .content import Piece
from .errors import CheckpointError
from .fingerprint import fingerprint_of_stored
from .index_check import check_edits
from .trace import names_after, rename
from .typed import as_digits, as_list, as_number, as_table, as_text, as_texts

if TYPE_CHECKING:
    from pathlib import Path

    from .checkpoint import Checkpoint
    from .plan import Plan

RECORD_NAME = "growth.json"
FORMAT = 1

_BLOCK = re.compile(r".*?\.[0-9]+(?=\.)", re.ASCII)

Rows = tuple[tuple[int, int], ...]
"""Ranges of rows of a tensor's first axis, as (start, stop)."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model before its first growth."""

    class_name: str
    name: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation as it was done. Tensors are named as they were called right after it."""

    operation: str
    options: Mapping[str, Any]
    index_map: Mapping[str, tuple[int, ...]]
    """Per stack: where block i of the input stands in the output."""
    copied_from: Mapping[str, Mapping[int, int]]
    """Per stack: new block of the output -> the block of the input that it copies."""
    new: tuple[str, ...]
    """Tensors that the input does not have."""
    zeroed: tuple[str, ...]
    """Those of them that were written as zeros, so that the function is unchanged."""
    zeroed_rows: Mapping[str, Rows] = field(default_factory=dict)
    """New tensors of which only some rows were written as zeros."""
    changed: tuple[str, ...] = ()
    """Tensors of the input whose values or shape changed."""
    rebuilt: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)
    """Tensors of the input, by the input's names, that stand in the output in another form: how to make them again."""
    config_before: Mapping[str, Any] = field(default_factory=dict)
    """Config keys that were edited -> the input's values; a key that the input did not have is in `config_added`."""
    config_added: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    """Modules that train as a whole with what is new, where those are not the numbered blocks that hold it."""
    pipeline_before: Mapping[str, Any] = field(default_factory=dict)
    """Keys of model_index.json that were edited -> the input's values; None for a key that it did not have."""
    input_fingerprint: str
    made_with: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """A model's growth."""

    base: Base
    steps: tuple[Step, ...]

    @property
    def new(self) -> tuple[str, ...]:
        """Tensors that the base does not have, as they are called now."""
        return self._now("new")

    @property
    def zeroed(self) -> tuple[str, ...]:
        """Tensors that were written as zeros and that no step changed since, as they are called now."""
        found: dict[str, None] = {}
        for number, step in enumerate(self.steps, 1):
            later = self.changed_since(number)
            names = (now for name in step.zeroed for now in names_after(name, self.steps[number:]))
            found |= dict.fromkeys(name for name in names if name not in later)
        return tuple(found)

    @property
    def changed(self) -> tuple[str, ...]:
        """Tensors of the base whose values or shape a step changed, as they are called now."""
        new = set(self.new)
        return tuple(name for name in self._now("changed") if name not in new)

    @property
    def zeroed_rows(self) -> dict[str, Rows]:
        """New tensors of which only some rows were written as zeros and no step changed since, by their names now."""
        found: dict[str, Rows] = {}
        for number, step in enumerate(self.steps, 1):
            later = self.changed_since(number)
            for name, rows in step.zeroed_rows.items():
                now = rename(name, self.steps[number:])
                if now not in later:
                    found[now] = rows
        return found

    @property
    def blocks(self) -> tuple[str, ...]:
        """The modules that new or changed tensors stand in, as they are called now: what trains as "grown-blocks"."""
        declared = {
            now
            for number, step in enumerate(self.steps, 1)
            for module in step.blocks
            for now in [rename(module, self.steps[number:])]
        }
        others = (name for name in (*self.new, *self.changed) if not _is_within(name, declared))
        found = {match[0] for name in others if (match := _BLOCK.match(name))}
        return tuple(sorted(declared | found))

    def changed_since(self, done: int) -> frozenset[str]:
        """Everything that the steps from number `done` on changed, the base's and what was new, by its names now."""
        return frozenset(self._now("changed", done))

    def _now(self, kind: str, done: int = 0) -> tuple[str, ...]:
        """What the steps from number `done` on list as `kind`, by its names now."""
        found = (
            now
            for number, step in enumerate(self.steps[done:], done + 1)
            for name in getattr(step, kind)
            for now in names_after(name, self.steps[number:])
        )
        return tuple(dict.fromkeys(found))

    @classmethod
    def read(cls, path: Path) -> Record:
        """Raises `CheckpointError` if the file is not a record of a known format."""
        return cls.parse(strict_json.read_object(path), where=str(path))

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, where: str) -> Record:
        """Raises `CheckpointError` if the data are not a record of a known format."""
        if data.get("format") != FORMAT:
            raise CheckpointError(
                f"{where}: record format {data.get('format')!r:.60}, this version of modelgrow reads {FORMAT}"
            )
        try:
            return cls(
                base=_base(as_table(data["base"])),
                steps=tuple(_step(as_table(step)) for step in as_list(data["steps"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{where}: not a growth record: {error!r:.200}. Restore the file, or remove it"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """The record as it is written. The lists at its end follow from the steps, for whoever wants only those."""
        return {
            "format": FORMAT,
            "base": {
                "class": self.base.class_name,
                "name": self.base.name,
                "fingerprint": self.base.fingerprint,
            },
            "steps": [_step_json(step) for step in self.steps],
            "new": list(self.new),
            "zeroed": list(self.zeroed),
            "changed": list(self.changed),
        }


def extend(
    checkpoint: Checkpoint,
    plan: Plan,
    *,
    name: str,
    made_with: str,
    pipeline_before: Mapping[str, Any] | None = None,
) -> Record:
    """The record of what `plan` makes of `checkpoint`. `name`: what the base is called, a Hub id or a folder's name."""
    fingerprint = fingerprint_of(checkpoint)
    earlier = checkpoint.record
    base = earlier.base if earlier else Base(class_name=plan.class_name, name=name, fingerprint=fingerprint)
    step = Step(
        operation=plan.operation,
        options=plan.options,
        index_map=plan.index_map,
        copied_from=plan.copied_from,
        new=plan.new_names,
        zeroed=plan.zeroed_names,
        zeroed_rows=plan.zeroed_rows,
        changed=plan.changed_names,
        rebuilt=plan.rebuilt,
        config_before={key: checkpoint.config[key] for key in plan.config_edits if key in checkpoint.config},
        config_added=tuple(key for key in plan.config_edits if key not in checkpoint.config),
        blocks=plan.blocks,
        pipeline_before=pipeline_before or {},
        input_fingerprint=fingerprint,
        made_with=made_with,
    )
    return Record(base=base, steps=(*(earlier.steps if earlier else ()), step))


def fingerprint_of(checkpoint: Checkpoint) -> str:
    """See `fingerprint`. It is of the weights: sharding and metadata do not count."""
    return fingerprint_of_stored(checkpoint.tensors)


def _is_within(name: str, modules: set[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _step_json(step: Step) -> dict[str, Any]:
    return {
        "operation": step.operation,
        "options": dict(step.options),
        "index_map": {stack: list(places) for stack, places in step.index_map.items()},
        "copied_from": {
            stack: {str(new): old for new, old in copies.items()} for stack, copies in step.copied_from.items()
        },
        "new": list(step.new),
        "zeroed": list(step.zeroed),
        "zeroed_rows": {name: [list(rows) for rows in ranges] for name, ranges in step.zeroed_rows.items()},
        "changed": list(step.changed),
        "rebuilt": {
            name: [[part.source, part.start, part.stop] for part in parts] for name, parts in step.rebuilt.items()
        },
        "config_before": dict(step.config_before),
        "config_added": list(step.config_added),
        **({"blocks": list(step.blocks)} if step.blocks else {}),
        **({"pipeline_before": dict(step.pipeline_before)} if step.pipeline_before else {}),
        "input_fingerprint": step.input_fingerprint,
        "made_with": step.made_with,
    }


def _base(data: Mapping[str, Any]) -> Base:
    return Base(**{"class_name" if key == "class" else key: as_text(value) for key, value in data.items()})


def _step(data: Mapping[str, Any]) -> Step:
    return Step(
        operation=as_text(data["operation"]),
        options=as_table(data["options"]),
        index_map={
            stack: tuple(map(as_number, as_list(places))) for stack, places in as_table(data["index_map"]).items()
        },
        copied_from={
            stack: {as_digits(new): as_number(old) for new, old in as_table(copies).items()}
            for stack, copies in as_table(data["copied_from"]).items()
        },
        new=as_texts(data["new"]),
        zeroed=as_texts(data["zeroed"]),
        zeroed_rows={name: tuple(map(_range, as_list(rows))) for name, rows in as_table(data["zeroed_rows"]).items()},
        changed=as_texts(data["changed"]),
        rebuilt={name: tuple(map(_piece, as_list(parts))) for name, parts in as_table(data["rebuilt"]).items()},
        config_before=as_table(data["config_before"]),
        config_added=as_texts(data["config_added"]),
        blocks=as_texts(data.get("blocks", [])),
        pipeline_before=check_edits(as_table(data.get("pipeline_before", {})), "pipeline_before"),
        input_fingerprint=as_text(data["input_fingerprint"]),
        made_with=as_text(data["made_with"]),
    )


def _piece(value: Any) -> Piece:
    source, start, stop = as_list(value)
    return Piece(source=as_text(source), start=as_number(start), stop=as_number(stop))


def _range(value: Any) -> tuple[int, int]:
    start, stop = as_list(value)
    return as_number(start), as_number(stop)
