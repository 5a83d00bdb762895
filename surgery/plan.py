"""A plan: the whole output of an operation, written down before a byte moves.

Operations make plans and nothing else; `job.execute` carries them out. `--dry-run` prints the object
that would have run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .content import Copy, Pieces, Stored, Values, Zeros, content_json, rows_of
from .errors import PlanError
from .plan_check import check_content
from .tensor import num_bytes

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .content import Content, Piece
    from .tensor import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTensor:
    """One tensor of the output."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: Content
    is_new: bool = False
    """Whether it is a parameter that the input does not have."""
    part: str | None = None
    """New tensors of one block share a part; a sharded output gives each part a shard of its own."""

    @classmethod
    def copy_of(cls, tensor: Tensor, source: str, *, name: str | None = None) -> PlannedTensor:
        """A tensor of the input as it is. `source`: its name there, and in the output unless `name` says another."""
        return cls(name=name or source, dtype=tensor.dtype, shape=tensor.shape, content=Copy(source=source))

    @property
    def nbytes(self) -> int:
        return num_bytes(self.dtype, self.shape, where=self.name)

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an operation makes of one checkpoint. Tensors are in the order in which they are written."""

    operation: str
    options: Mapping[str, Any]
    class_name: str
    tensors: tuple[PlannedTensor, ...]
    config_edits: Mapping[str, Any] = field(default_factory=dict)
    config_dropped: tuple[str, ...] = ()
    """Config keys that the output does not have."""
    pipeline_edits: Mapping[str, Any] = field(default_factory=dict)
    """Keys of model_index.json -> their new values, None to take one away, where the checkpoint is a pipeline's
    component. The component's own entry follows from a new `_class_name` by itself, see `index`."""
    index_map: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Per stack: where block i of the input stands in the output."""
    copied_from: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Per stack: new block of the output -> the block of the input that it copies."""
    rebuilt: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)
    """Tensors of the input that stand in the output in another form -> the output's rows that make them again."""
    dropped: tuple[str, ...] = ()
    """Tensors of the input that the operation takes away on purpose."""
    notes: tuple[str, ...] = ()
    """What the user should know before it runs."""
    blocks: tuple[str, ...] = ()
    """Modules that train as a whole with what is new, where those are not the numbered blocks that hold it."""

    @property
    def new_names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.tensors if tensor.is_new)

    @property
    def zeroed_names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.tensors if isinstance(tensor.content, Zeros))

    @property
    def zeroed_rows(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """New tensors of which only some rows are zero -> those rows, as (start, stop)."""
        found: dict[str, tuple[tuple[int, int], ...]] = {}
        for tensor in self.tensors:
            if tensor.is_new and isinstance(tensor.content, Pieces):
                found[tensor.name] = tuple(rows for rows, part in rows_of(tensor.content.parts) if part.source is None)
        return found

    @property
    def changed_names(self) -> tuple[str, ...]:
        """Tensors that the input has and that stand in the output with other values or another shape."""
        return tuple(t.name for t in self.tensors if not t.is_new and not isinstance(t.content, Copy))

    @property
    def renamed(self) -> dict[str, str]:
        """Every tensor of the input -> what it is called in the output."""
        return {t.content.source: t.name for t in self.tensors if isinstance(t.content, Copy) and not t.is_new}

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def num_new_parameters(self) -> int:
        return sum(tensor.num_elements for tensor in self.tensors if tensor.is_new)

    def validate(self, checkpoint: Checkpoint) -> None:
        """Check the plan against the checkpoint it is for.

        Raises:
            PlanError: A name comes twice, a copy's source is missing or of another dtype or shape, or a
                tensor of the input would be lost.
        """
        self._check_names()
        for tensor in self.tensors:
            check_content(tensor, checkpoint)
        replaced = {tensor.name for tensor in self.tensors if isinstance(tensor.content, Stored | Values)}
        kept = {*self.renamed, *self.rebuilt, *self.dropped, *replaced}
        lost = [name for name in checkpoint.tensors if name not in kept]
        if lost:
            raise PlanError(f"the plan would lose {lost[0]!r} ({len(lost)} tensors in all)")

    def _check_names(self) -> None:
        seen: set[str] = set()
        for tensor in self.tensors:
            if tensor.name in seen:
                raise PlanError(f"the plan writes {tensor.name!r} twice")
            seen.add(tensor.name)

    def new_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The output's config.json."""
        return {key: value for key, value in {**config, **self.config_edits}.items() if key not in self.config_dropped}

    def to_json(self) -> dict[str, Any]:
        """The plan as data: what `--dry-run --json` prints."""
        return {
            "operation": self.operation,
            "class": self.class_name,
            "options": dict(self.options),
            "config_edits": dict(self.config_edits),
            "config_dropped": list(self.config_dropped),
            "pipeline_edits": dict(self.pipeline_edits),
            "index_map": {stack: list(places) for stack, places in self.index_map.items()},
            "copied_from": {
                stack: {str(new): old for new, old in copies.items()} for stack, copies in self.copied_from.items()
            },
            "new_parameters": self.num_new_parameters,
            "bytes": self.num_bytes,
            "notes": list(self.notes),
            "tensors": [
                {
                    "name": tensor.name,
                    "dtype": tensor.dtype,
                    "shape": list(tensor.shape),
                    "new": tensor.is_new,
                    **content_json(tensor.content),
                }
                for tensor in self.tensors
            ],
        }
