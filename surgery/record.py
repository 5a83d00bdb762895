"""growth.json, the record beside config.json: where a model came from and what has grown.

The trainer reads which tensors are new, `verify` which must be zero, `shrink` how to go back. It is
what makes "only the new parameters" a fact and not a naming habit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import strict_json
from .errors import CheckpointError
from .fingerprint import fingerprint_of
from .kept import kept_of
from .step import Rows, Step
from .trace import listed, names_after, rename
from .typed import as_list, as_table, as_text

if TYPE_CHECKING:
    from pathlib import Path

    from .checkpoint import Checkpoint
    from .plan import Plan

RECORD_NAME = "growth.json"
FORMAT = 1

_BLOCK = re.compile(r".*?\.[0-9]+(?=\.)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model before its first growth."""

    class_name: str
    name: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """A model's growth."""

    base: Base
    steps: tuple[Step, ...]

    @property
    def new(self) -> tuple[str, ...]:
        """Tensors that the base does not have, as they are called now."""
        return listed(self.steps, "new")

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
        return tuple(name for name in listed(self.steps, "changed") if name not in new)

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
            rename(module, self.steps[number:]) for number, step in enumerate(self.steps, 1) for module in step.blocks
        }
        others = (name for name in (*self.new, *self.changed) if not _is_within(name, declared))
        found = {match[0] for name in others if (match := _BLOCK.match(name))}
        return tuple(sorted(declared | found))

    def changed_since(self, done: int) -> frozenset[str]:
        """Everything that the steps from number `done` on changed, the base's and what was new, by its names now."""
        return frozenset(listed(self.steps, "changed", since=done))

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
                steps=tuple(Step.parse(as_table(step)) for step in as_list(data["steps"])),
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
            "steps": [step.to_json() for step in self.steps],
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
        kept=kept_of(plan, checkpoint),
        pipeline_before=pipeline_before or {},
        input_fingerprint=fingerprint,
        made_with=made_with,
    )
    return Record(base=base, steps=(*(earlier.steps if earlier else ()), step))


def _is_within(name: str, modules: set[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _base(data: Mapping[str, Any]) -> Base:
    return Base(**{"class_name" if key == "class" else key: as_text(value) for key, value in data.items()})
