"""A plan: the whole output of an operation, written down before a byte moves.

Operations make plans and nothing else; `apply` carries them out. `--dry-run` prints the object
that would have run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import PlanError
from .header import num_bytes

if TYPE_CHECKING:
    from .checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """The bytes of a tensor of the input."""

    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Zeros:
    """All bytes zero, which is +0.0 (in F8_E8M0, which has no zero, it is not, and `validate` says so)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Values:
    """A small array that the operation computed, as little-endian bytes."""

    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTensor:
    """One tensor of the output."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: Copy | Zeros | Values
    is_new: bool = False
    """Whether it is a parameter that the input does not have."""
    part: str | None = None
    """New tensors of one block share a part; a sharded output gives each part a shard of its own."""

    @property
    def nbytes(self) -> int:
        return num_bytes(self.dtype, self.shape, where=self.name)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an operation makes of one checkpoint. Tensors are in the order in which they are written."""

    operation: str
    options: Mapping[str, Any]
    class_name: str
    tensors: tuple[PlannedTensor, ...]
    config_edits: Mapping[str, Any] = field(default_factory=dict)
    index_map: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Per stack: where block i of the input stands in the output."""
    copied_from: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Per stack: new block of the output -> the block of the input that it copies."""
    notes: tuple[str, ...] = ()
    """What the user should know before it runs."""

    @property
    def new_names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.tensors if tensor.is_new)

    @property
    def zeroed_names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.tensors if isinstance(tensor.content, Zeros))

    @property
    def renamed(self) -> dict[str, str]:
        """Every tensor of the input -> what it is called in the output."""
        return {t.content.source: t.name for t in self.tensors if isinstance(t.content, Copy) and not t.is_new}

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def num_new_parameters(self) -> int:
        total = 0
        for tensor in self.tensors:
            if tensor.is_new:
                count = 1
                for side in tensor.shape:
                    count *= side
                total += count
        return total

    def validate(self, checkpoint: Checkpoint) -> None:
        """Check the plan against the checkpoint it is for.

        Raises:
            PlanError: A name comes twice, a copy's source is missing or of another dtype or shape, or a
                tensor of the input would be lost.
        """
        seen: set[str] = set()
        for tensor in self.tensors:
            if tensor.name in seen:
                raise PlanError(f"the plan writes {tensor.name!r} twice")
            seen.add(tensor.name)
            if isinstance(tensor.content, Copy):
                source = checkpoint.tensors.get(tensor.content.source)
                if source is None:
                    raise PlanError(f"{tensor.name!r} copies {tensor.content.source!r}, which {checkpoint.path} lacks")
                if (source.dtype, source.shape) != (tensor.dtype, tensor.shape):
                    raise PlanError(
                        f"{tensor.name!r} is planned as {tensor.dtype} {list(tensor.shape)}, its source "
                        f"{tensor.content.source!r} is {source.dtype} {list(source.shape)}"
                    )
            elif isinstance(tensor.content, Zeros) and tensor.dtype == "F8_E8M0":
                raise PlanError(f"{tensor.name!r} should be zero, and its dtype F8_E8M0 can't hold a zero")
            elif isinstance(tensor.content, Values) and len(tensor.content.data) != tensor.nbytes:
                raise PlanError(
                    f"{tensor.name!r} takes {tensor.nbytes} bytes, its values have {len(tensor.content.data)}"
                )
        lost = [name for name in checkpoint.tensors if name not in self.renamed]
        if lost:
            raise PlanError(f"the plan would lose {lost[0]!r} ({len(lost)} tensors in all)")

    def new_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The output's config.json."""
        return {**config, **self.config_edits}

    def to_json(self) -> dict[str, Any]:
        """The plan as data: what `--dry-run --json` prints."""
        return {
            "operation": self.operation,
            "class": self.class_name,
            "options": dict(self.options),
            "config_edits": dict(self.config_edits),
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
                    **_content_json(tensor.content),
                }
                for tensor in self.tensors
            ],
        }


def _content_json(content: Copy | Zeros | Values) -> dict[str, str]:
    if isinstance(content, Copy):
        return {"content": "copy", "source": content.source}
    return {"content": "zeros" if isinstance(content, Zeros) else "values"}
