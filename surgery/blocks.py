"""What a new block is made of: a copy of another one, silenced so that it adds nothing to the residual stream.

As in LLaMA-Pro (arXiv 2401.02415) the last projection of every residual branch is zero; where that would
blow up gradients or is not enough, the rows of a modulation that gate the branch are zero instead. Never
both: the branch would be dead for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .content import Copy, Piece, Pieces, Zeros, rows_of
from .errors import CheckpointError, PlanError

if TYPE_CHECKING:
    from .anatomy import Gate, Last
    from .checkpoint import Checkpoint
    from .content import Content
    from .stacks import FoundStack

KINDS = ("weight", "bias")


@dataclass(frozen=True, kw_only=True)
class BlockTensor:
    """One tensor of a block to be."""

    dtype: str
    shape: tuple[int, ...]
    content: Content


Block = Mapping[str, BlockTensor]
"""Name inside the block -> what it will be."""


def copy_block(checkpoint: Checkpoint, found: FoundStack, number: int) -> dict[str, BlockTensor]:
    """All tensors of a block, as they are."""
    return {
        inner: BlockTensor(dtype=(t := checkpoint.tensors[name]).dtype, shape=t.shape, content=Copy(source=name))
        for inner, name in found.blocks[number].items()
    }


def silence(
    block: Block, *, zero: tuple[str, ...], gates: tuple[Gate, ...], keep: frozenset[str] = frozenset()
) -> dict[str, BlockTensor]:
    """The block with its last projections and gates zero. `keep`: modules that a zero gate silences already."""
    zeroed = {f"{module}.{kind}" for module in zero if module not in keep for kind in KINDS}
    silent = {inner: replace(part, content=Zeros()) if inner in zeroed else part for inner, part in block.items()}
    for gate in gates:
        if gate.without is None or f"{gate.without}.weight" not in block:
            _close(silent, gate)
    return silent


def _close(block: dict[str, BlockTensor], gate: Gate) -> None:
    for kind in KINDS:
        part = block.get(f"{gate.module}.{kind}")
        if part is None or not part.shape:
            continue
        rows = _chunk(part.shape[0], gate.chunks, f"{gate.module}.{kind}")
        pieces = _as_pieces(part)
        for chunk in gate.zero:
            pieces = _clear(pieces, chunk * rows, (chunk + 1) * rows)
        block[f"{gate.module}.{kind}"] = replace(part, content=Pieces(parts=pieces))


def _as_pieces(part: BlockTensor) -> tuple[Piece, ...]:
    if isinstance(part.content, Pieces):
        return part.content.parts
    source = part.content.source if isinstance(part.content, Copy) else None
    return (Piece(source=source, start=0, stop=part.shape[0]),)


def _clear(pieces: tuple[Piece, ...], start: int, stop: int) -> tuple[Piece, ...]:
    """The pieces with zeros in rows `start` to `stop`."""
    found: list[Piece] = []
    for (begin, end), piece in rows_of(pieces):
        first, last = max(start, begin) - begin, min(stop, end) - begin
        if piece.source is None or first >= last:
            found.append(piece)
        else:
            head = replace(piece, stop=piece.start + first)
            tail = replace(piece, start=piece.start + last)
            middle = Piece(source=None, start=0, stop=last - first)
            found += [part for part in (head, middle, tail) if part.num_rows > 0]
    return tuple(found)


def _chunk(rows: int, chunks: int, where: str) -> int:
    if rows % chunks:
        raise CheckpointError(f"{where}: {rows} rows do not come in {chunks} equal chunks, as its anatomy says")
    return rows // chunks


def as_inner(block: Block, last: Last, before: Block, *, where: str) -> dict[str, BlockTensor]:
    """The last block, which writes no text, as an inner one that leaves the text as it is.

    Args:
        block: The last block of the input.
        last: How its modulation becomes an inner one.
        before: The block before it, which lends the projections that only inner blocks have.
        where: For the message.

    Raises:
        PlanError: There is no block before it that could lend them.
    """
    inner = dict(block)
    for kind in KINDS:
        part, model = inner.pop(f"{last.module}.{kind}", None), before.get(f"{last.inner_module}.{kind}")
        if part is None or model is None:
            if part is None and model is None:
                continue
            raise PlanError(f"{where}: {last.module}.{kind} of the last block has no counterpart in the one before it")
        rows = _chunk(model.shape[0], len(last.chunks), f"{where}.{last.inner_module}.{kind}")
        pieces = tuple(_take(part, chunk, rows) for chunk in last.chunks)
        inner[f"{last.inner_module}.{kind}"] = replace(model, dtype=part.dtype, content=Pieces(parts=pieces))
    for module in last.borrow:
        inner.update({name: part for name, part in before.items() if name in {f"{module}.{k}" for k in KINDS}})
    return inner


def _take(part: BlockTensor, chunk: int, rows: int) -> Piece:
    if chunk < 0:
        return Piece(source=None, start=0, stop=rows)
    source = part.content.source if isinstance(part.content, Copy) else None
    return Piece(source=source, start=chunk * rows, stop=(chunk + 1) * rows)


def rebuild_last(last: Last, name: str, rows: int) -> tuple[Piece, ...]:
    """The rows of the inner modulation `name`, of `rows` rows in all, that make the last block's again."""
    chunk = rows // len(last.chunks)
    places = [last.chunks.index(number) for number in range(max(last.chunks) + 1)]
    return tuple(Piece(source=name, start=place * chunk, stop=(place + 1) * chunk) for place in places)
