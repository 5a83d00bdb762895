"""Small tensors that a step replaced by others, kept in its record so that the step can be taken back."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .content import Values
from .tensor import num_bytes
from .typed import as_numbers, as_table, as_text

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .plan import Plan

TABLE_ROWS = "table_rows"
"""Option of a step that made stored tables (1, rows, width) longer behind the rows that they had: this many."""
MAX_KEPT = 1_000_000
"""Bytes of one step's. Tables of positions in time have some ten or hundred thousand; larger ones are not kept."""


@dataclass(frozen=True, kw_only=True)
class KeptTensor:
    """A tensor as it was."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def parse(cls, value: Any) -> KeptTensor:
        """As growth.json has it. Raises `ValueError`, also as `CheckpointError`, or `KeyError` for what it has not."""
        table = as_table(value)
        dtype, shape = as_text(table["dtype"]), as_numbers(table["shape"])
        data = base64.b64decode(as_text(table["data"]), validate=True)
        if any(side < 0 for side in shape) or num_bytes(dtype, shape, where="kept") != len(data):
            raise ValueError(f"expected the bytes of a tensor {dtype} {list(shape)}, found {len(data)}")
        return cls(dtype=dtype, shape=shape, data=data)

    def to_json(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "shape": list(self.shape), "data": base64.b64encode(self.data).decode("ascii")}


def kept_of(plan: Plan, checkpoint: Checkpoint) -> Mapping[str, KeptTensor]:
    """The tensors that a plan replaces by computed ones, by name, if they are small and not those ones' first rows.

    Raises:
        OSError, CheckpointError: One can't be read.
    """
    if TABLE_ROWS in plan.options:
        return {}
    names = [t.name for t in plan.tensors if isinstance(t.content, Values) and t.name in checkpoint.tensors]
    old = {name: checkpoint.tensors[name] for name in names}
    if sum(tensor.nbytes for tensor in old.values()) > MAX_KEPT:
        return {}
    return {name: KeptTensor(dtype=t.dtype, shape=t.shape, data=t.read()) for name, t in old.items()}
