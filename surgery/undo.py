"""Steps taken back: the tensors of an earlier model, made from those of the grown one by its record."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .content import Copy, Piece, Pieces, Stored, Values, cut
from .errors import CheckpointError, PlanError
from .kept import TABLE_ROWS
from .plan import PlannedTensor
from .trace import NUMBER, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .checkpoint import Checkpoint
    from .content import Content
    from .step import Step

_Tensors = dict[str, PlannedTensor]


def take_back(checkpoint: Checkpoint, steps: Sequence[Step]) -> tuple[PlannedTensor, ...]:
    """The tensors as they were before the last `steps`, named as they were; contents name tensors of the checkpoint.

    What a step made new goes. A tensor that a step took apart is put together from its rows, and one that it replaced
    is what the step kept of it.

    Raises:
        PlanError: A step changed a tensor for good, so that it can't be taken back.
        CheckpointError: The record does not fit the tensors.
    """
    tensors = {name: PlannedTensor.copy_of(tensor, name) for name, tensor in checkpoint.tensors.items()}
    for number in reversed(range(len(steps))):
        step = steps[number]
        going = frozenset(listed(steps[: number + 1], "new"))
        if TABLE_ROWS in step.options:
            tensors = _shorten(tensors, step, checkpoint)
        tensors = _take_back_one(tensors, step, going, f"{checkpoint.path}: {step.operation}")
    return tuple(tensors.values())


def _take_back_one(tensors: _Tensors, step: Step, going: frozenset[str], where: str) -> _Tensors:
    parts = {part.source: name for name, pieces in step.rebuilt.items() for part in reversed(pieces) if part.source}
    new = set(step.new)
    for name in step.changed:
        if not (name in parts or name in going or name in step.kept or TABLE_ROWS in step.options):
            raise PlanError(
                f"{where} changed {name!r} and kept no way to make the old one again, so this step can't be taken "
                "back. Start from the base"
            )
    missing = next((name for name in (*step.new, *parts) if name not in tensors), None)
    if missing is not None:
        raise CheckpointError(f"{where} made {missing!r}, which is not there; growth.json is of other weights")
    found: _Tensors = {}
    for name, tensor in tensors.items():
        if name in parts:
            old = [_rebuild(key, step, tensors, where) for key in step.rebuilt if _first(step, key) == name]
        elif name in new:
            old = []
        elif name in step.kept:
            kept = step.kept[name]
            before = rename_back(name, step.index_map, where=where)
            old = [PlannedTensor(name=before, dtype=kept.dtype, shape=kept.shape, content=Values(data=kept.data))]
        else:
            old = [replace(tensor, name=rename_back(name, step.index_map, where=where))]
        for earlier in old:
            if earlier.name in found:
                raise CheckpointError(f"{where}: two tensors would be called {earlier.name!r}; growth.json is damaged")
            found[earlier.name] = earlier
    return found


def _shorten(tensors: _Tensors, step: Step, checkpoint: Checkpoint) -> _Tensors:
    """The tables that a step made longer, with the rows that they had."""
    rows, found = step.options[TABLE_ROWS], dict(tensors)
    for name in step.changed:
        table = checkpoint.tensors.get(name)
        if type(rows) is not int or table is None or len(table.shape) != 3 or not 0 < rows <= table.shape[1]:
            raise CheckpointError(f"{checkpoint.path}: {name!r} has no {rows!r:.60} rows; growth.json is damaged")
        shape = (table.shape[0], rows, table.shape[2])
        first = replace(table, shape=shape, nbytes=table.nbytes // table.shape[1] * rows)
        found[name] = replace(found[name], shape=shape, content=Stored(tensor=first))
    return found


def rename_back(name: str, index_map: Mapping[str, tuple[int, ...]], *, where: str) -> str:
    """What a tensor was called before a step.

    Raises:
        CheckpointError: It stands in a block that the step neither carried over nor made.
    """
    for stack, places in index_map.items():
        if not name.startswith(stack + "."):
            continue
        match = NUMBER.match(name, len(stack) + 1)
        if match is None:
            continue
        number = int(match[1])
        if number in places:
            return f"{stack}.{places.index(number)}.{name[match.end() :]}"
        raise CheckpointError(f"{where} neither carried over nor made {name!r}; growth.json is of other weights")
    return name


def _first(step: Step, key: str) -> str | None:
    return next((part.source for part in step.rebuilt[key] if part.source), None)


def _rebuild(name: str, step: Step, tensors: _Tensors, where: str) -> PlannedTensor:
    pieces: list[Piece] = []
    model: PlannedTensor | None = None
    for part in step.rebuilt[name]:
        holder = tensors[str(part.source)]
        if model is not None and (holder.dtype, holder.shape[1:]) != (model.dtype, model.shape[1:]):
            raise CheckpointError(f"{where}: the parts of {name!r} do not fit together; growth.json is damaged")
        if not holder.shape or not 0 <= part.start <= part.stop <= holder.shape[0]:
            raise CheckpointError(
                f"{where}: {name!r} was made of rows {part.start} to {part.stop} of {part.source!r}, which has the "
                f"shape {list(holder.shape)}; growth.json is of other weights"
            )
        model = model or holder
        pieces += _slice(holder, part.start, part.stop)
    if model is None:
        raise CheckpointError(f"{where}: nothing says what {name!r} was made of; growth.json is damaged")
    rows = sum(piece.num_rows for piece in pieces)
    content: Content = Pieces(parts=tuple(pieces))
    if model.content == Copy(source=str(pieces[0].source)) and len(pieces) == 1 and rows == model.shape[0]:
        content = model.content
    return PlannedTensor(name=name, dtype=model.dtype, shape=(rows, *model.shape[1:]), content=content)


def _slice(tensor: PlannedTensor, start: int, stop: int) -> list[Piece]:
    """Rows of a tensor as pieces of what it is made of."""
    content = tensor.content
    if isinstance(content, Copy):
        return [Piece(source=content.source, start=start, stop=stop)]
    if isinstance(content, Pieces):
        return cut(content.parts, start, stop)
    return [Piece(source=None, start=0, stop=stop - start)]
