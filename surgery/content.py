"""What a tensor of the output is made of: the input's bytes, rows of them, zeros, or values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tensor import Tensor


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

    @property
    def num_rows(self) -> int:
        return self.stop - self.start


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


def stored_in(content: Content, sources: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The tensors whose bytes a content takes. `sources`: those that it may name."""
    if isinstance(content, Stored):
        return (content.tensor,)
    names = (content.source,) if isinstance(content, Copy) else content.sources if isinstance(content, Pieces) else ()
    return tuple(sources[name] for name in names)


def rows_of(parts: Iterable[Piece]) -> list[tuple[tuple[int, int], Piece]]:
    """Where each piece stands in the tensor that they make: its rows, as (start, stop)."""
    found, position = [], 0
    for part in parts:
        end = position + part.num_rows
        found.append(((position, end), part))
        position = end
    return found


def cut(parts: Iterable[Piece], start: int, stop: int) -> list[Piece]:
    """The pieces of rows `start` to `stop` of the tensor that `parts` make."""
    found = []
    for (begin, end), part in rows_of(parts):
        first, last = max(start, begin) - begin, min(stop, end) - begin
        if first < last:
            found.append(replace(part, start=part.start + first, stop=part.start + last))
    return found


def content_json(content: Content) -> dict[str, Any]:
    """A content as `--dry-run --json` prints it."""
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
