"""One step of a growth: what an operation did to a checkpoint, as growth.json keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .content import Piece
from .index_check import check_edits
from .kept import KeptTensor
from .typed import as_digits, as_list, as_number, as_numbers, as_table, as_text, as_texts

Rows = tuple[tuple[int, int], ...]
"""Ranges of rows of a tensor's first axis, as (start, stop)."""


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
    kept: Mapping[str, KeptTensor] = field(default_factory=dict)
    """Those of `changed` that nothing in the output could make again, as they were."""
    pipeline_before: Mapping[str, Any] = field(default_factory=dict)
    """Keys of model_index.json that were edited -> the input's values; None for a key that it did not have."""
    input_fingerprint: str
    made_with: str

    @property
    def summary(self) -> str:
        """The operation and its options, in a line."""
        return f"{self.operation} " + " ".join(f"{key}={value}" for key, value in self.options.items())

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Step:
        """A step as growth.json has it.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: The data are no step; `Record.parse` says in which file.
        """
        return cls(
            operation=as_text(data["operation"]),
            options=as_table(data["options"]),
            index_map={stack: as_numbers(places) for stack, places in as_table(data["index_map"]).items()},
            copied_from={
                stack: {as_digits(new): as_number(old) for new, old in as_table(copies).items()}
                for stack, copies in as_table(data["copied_from"]).items()
            },
            new=as_texts(data["new"]),
            zeroed=as_texts(data["zeroed"]),
            zeroed_rows={
                name: tuple(map(_range, as_list(rows))) for name, rows in as_table(data["zeroed_rows"]).items()
            },
            changed=as_texts(data["changed"]),
            rebuilt={name: tuple(map(_piece, as_list(parts))) for name, parts in as_table(data["rebuilt"]).items()},
            config_before=as_table(data["config_before"]),
            config_added=as_texts(data["config_added"]),
            blocks=as_texts(data.get("blocks", [])),
            kept={name: KeptTensor.parse(value) for name, value in as_table(data.get("kept", {})).items()},
            pipeline_before=check_edits(as_table(data.get("pipeline_before", {})), "pipeline_before"),
            input_fingerprint=as_text(data["input_fingerprint"]),
            made_with=as_text(data["made_with"]),
        )

    def to_json(self) -> dict[str, Any]:
        """The step as growth.json has it."""
        return {
            "operation": self.operation,
            "options": dict(self.options),
            "index_map": {stack: list(places) for stack, places in self.index_map.items()},
            "copied_from": {
                stack: {str(new): old for new, old in copies.items()} for stack, copies in self.copied_from.items()
            },
            "new": list(self.new),
            "zeroed": list(self.zeroed),
            "zeroed_rows": {name: [list(rows) for rows in ranges] for name, ranges in self.zeroed_rows.items()},
            "changed": list(self.changed),
            "rebuilt": {
                name: [[part.source, part.start, part.stop] for part in parts] for name, parts in self.rebuilt.items()
            },
            "config_before": dict(self.config_before),
            "config_added": list(self.config_added),
            **({"blocks": list(self.blocks)} if self.blocks else {}),
            **({"kept": {name: tensor.to_json() for name, tensor in self.kept.items()}} if self.kept else {}),
            **({"pipeline_before": dict(self.pipeline_before)} if self.pipeline_before else {}),
            "input_fingerprint": self.input_fingerprint,
            "made_with": self.made_with,
        }


def _piece(value: Any) -> Piece:
    source, start, stop = as_list(value)
    return Piece(source=as_text(source), start=as_number(start), stop=as_number(stop))


def _range(value: Any) -> tuple[int, int]:
    start, stop = as_list(value)
    return as_number(start), as_number(stop)
