"""A plan: the whole output of an operation, written down before a byte moves.

Operations make plans and nothing else; `apply` carries them out. `--dry-run` prints the object
that would have run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .drawn import SIZES
from .errors import PlanError
from .header import Tensor, num_bytes
from .identity import one

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
class Ones:
    """Zeros, and a one at every `stride`-th element from element `start` on: identities too large to hold."""

    start: int
    stride: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """Random values, uniform in [-bound, bound), made while they are written: see `drawn`."""

    seed: int
    bound: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Rows `start` to `stop` (of the first axis) of a tensor, or as many rows of zeros where it has no `source`."""

    source: str | None
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """Rows of tensors of the input, and zeros, one after another."""

    parts: tuple[Piece, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.source for part in self.parts if part.source is not None))


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The bytes of a tensor in a file that is not the input's, such as what was trained."""

    tensor: Tensor


Content = Copy | Zeros | Values | Ones | Drawn | Pieces | Stored


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
                found[tensor.name] = tuple(rows for rows, part in rows_of(tensor.content) if part.source is None)
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
        self._check_names()
        for tensor in self.tensors:
            _check_content(tensor, checkpoint)
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
                    **_content_json(tensor.content),
                }
                for tensor in self.tensors
            ],
        }


def rows_of(content: Pieces) -> list[tuple[tuple[int, int], Piece]]:
    """Where each piece stands in the tensor that they make: its rows, as (start, stop)."""
    found, position = [], 0
    for part in content.parts:
        end = position + part.stop - part.start
        found.append(((position, end), part))
        position = end
    return found


def _check_content(tensor: PlannedTensor, checkpoint: Checkpoint) -> None:
    content = tensor.content
    if isinstance(content, Copy):
        source = _source(tensor, content.source, checkpoint)
        if (source.dtype, source.shape) != (tensor.dtype, tensor.shape):
            raise PlanError(
                f"{tensor.name!r} is planned as {tensor.dtype} {list(tensor.shape)}, its source "
                f"{content.source!r} is {source.dtype} {list(source.shape)}"
            )
    elif isinstance(content, Stored):
        if (content.tensor.dtype, content.tensor.shape) != (tensor.dtype, tensor.shape):
            raise PlanError(
                f"{tensor.name!r} is planned as {tensor.dtype} {list(tensor.shape)}, in {content.tensor.file} it is "
                f"{content.tensor.dtype} {list(content.tensor.shape)}"
            )
    elif isinstance(content, Pieces):
        _check_pieces(tensor, content, checkpoint)
    elif isinstance(content, Ones):
        one(tensor.dtype, where=tensor.name)
    elif isinstance(content, Zeros) and tensor.dtype == "F8_E8M0":
        raise PlanError(f"{tensor.name!r} should be zero, and its dtype F8_E8M0 can't hold a zero")
    elif isinstance(content, Drawn) and tensor.dtype not in SIZES:
        raise PlanError(f"{tensor.name!r} can't be drawn in {tensor.dtype}; that can be done in {', '.join(SIZES)}")
    elif isinstance(content, Values) and len(content.data) != tensor.nbytes:
        raise PlanError(f"{tensor.name!r} takes {tensor.nbytes} bytes, its values have {len(content.data)}")


def _check_pieces(tensor: PlannedTensor, content: Pieces, checkpoint: Checkpoint) -> None:
    if not tensor.shape or sum(part.stop - part.start for part in content.parts) != tensor.shape[0]:
        raise PlanError(f"{tensor.name!r}: its pieces do not make up its shape {list(tensor.shape)}")
    num_bytes(tensor.dtype, tensor.shape[1:], where=f"a row of {tensor.name!r}")
    for part in content.parts:
        if part.source is None:
            if tensor.dtype == "F8_E8M0":
                raise PlanError(f"{tensor.name!r} should have zeros, and its dtype F8_E8M0 can't hold a zero")
            continue
        source = _source(tensor, part.source, checkpoint)
        if (source.dtype, source.shape[1:]) != (tensor.dtype, tensor.shape[1:]) or part.stop > source.shape[0]:
            raise PlanError(
                f"{tensor.name!r} is planned as {tensor.dtype} {list(tensor.shape)} with rows {part.start} to "
                f"{part.stop} of {part.source!r}, which is {source.dtype} {list(source.shape)}"
            )


def _source(tensor: PlannedTensor, name: str, checkpoint: Checkpoint) -> Tensor:
    source = checkpoint.tensors.get(name)
    if source is None:
        raise PlanError(f"{tensor.name!r} copies {name!r}, which {checkpoint.path} lacks")
    return source


def _content_json(content: Content) -> dict[str, Any]:
    if isinstance(content, Copy):
        return {"content": "copy", "source": content.source}
    if isinstance(content, Pieces):
        return {"content": "pieces", "pieces": [[part.source, part.start, part.stop] for part in content.parts]}
    if isinstance(content, Stored):
        return {"content": "stored", "file": str(content.tensor.file)}
    if isinstance(content, Ones):
        return {"content": "ones", "start": content.start, "stride": content.stride}
    if isinstance(content, Drawn):
        return {"content": "drawn", "seed": content.seed, "bound": content.bound}
    return {"content": "zeros" if isinstance(content, Zeros) else "values"}
