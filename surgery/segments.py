"""What a file is made of, byte for byte: ranges of other files, bytes at hand, and zeros."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .content import Copy, Drawn, Ones, Pieces, Stored, Values
from .drawn import draw
from .identity import one
from .move import BLOCK

if TYPE_CHECKING:
    from pathlib import Path

    from .plan import PlannedTensor
    from .tensor import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A range of an output file: from `source` at `offset`, or `data`, or `drawn`, or zeros where it has none."""

    position: int
    nbytes: int
    source: Path | None = None
    offset: int = 0
    data: bytes | None = None
    drawn: Drawn | None = None
    """Random values, from byte `offset` of their tensor on."""
    dtype: str = ""
    """In which they are drawn."""
    name: str = ""
    """The tensor that it begins in, for messages."""

    @property
    def end(self) -> int:
        return self.position + self.nbytes

    @property
    def is_zeros(self) -> bool:
        return self.source is None and self.data is None and self.drawn is None

    @property
    def is_congruent(self) -> bool:
        """Whether source and target lie the same within a block, so that whole blocks can be cloned."""
        return self.source is not None and (self.position - self.offset) % BLOCK == 0

    def made(self) -> Segment:
        """The segment with its random values at hand, if it has any."""
        if self.drawn is None:
            return self
        data = draw(self.drawn.seed, self.drawn.bound, self.dtype, self.offset, self.nbytes)
        return replace(self, data=data, drawn=None)

    def cut(self, start: int, stop: int) -> Segment:
        """The part between two positions of the output file."""
        skipped = start - self.position
        return replace(
            self,
            position=start,
            nbytes=stop - start,
            offset=self.offset + skipped,
            data=None if self.data is None else self.data[skipped : skipped + stop - start],
        )

    def in_steps(self, size: int) -> Iterator[Segment]:
        """Parts of at most `size` bytes, cut where the output's position is a multiple of it."""
        start = self.position
        while start < self.end:
            stop = min(self.end, start - start % size + size)
            yield self.cut(start, stop)
            start = stop


def segments_of(tensors: Iterable[PlannedTensor], sources: Mapping[str, Tensor], position: int) -> list[Segment]:
    """Planned tensors one after another from `position` on; ranges that also adjoin in their source become one."""
    found: list[Segment] = []
    for tensor in tensors:
        for segment in _resolve(tensor, sources, position):
            last = found[-1] if found else None
            if last is not None and _adjoin(last, segment):
                found[-1] = replace(last, nbytes=last.nbytes + segment.nbytes)
            elif segment.nbytes:
                found.append(segment)
        position += tensor.nbytes
    return found


def _resolve(tensor: PlannedTensor, sources: Mapping[str, Tensor], position: int) -> Iterator[Segment]:
    content, name = tensor.content, tensor.name
    if isinstance(content, Copy):
        source = sources[content.source]
        yield Segment(position=position, nbytes=source.nbytes, source=source.file, offset=source.offset, name=name)
    elif isinstance(content, Stored):
        held = content.tensor
        yield Segment(position=position, nbytes=held.nbytes, source=held.file, offset=held.offset, name=name)
    elif isinstance(content, Values):
        yield Segment(position=position, nbytes=len(content.data), data=content.data, name=name)
    elif isinstance(content, Ones):
        yield from _ones(tensor, content, position)
    elif isinstance(content, Drawn):
        yield Segment(position=position, nbytes=tensor.nbytes, drawn=content, dtype=tensor.dtype, name=name)
    elif isinstance(content, Pieces):
        row = tensor.nbytes // tensor.shape[0] if tensor.shape[0] else 0
        for part in content.parts:
            nbytes = row * part.num_rows
            if part.source is None:
                yield Segment(position=position, nbytes=nbytes, name=name)
            else:
                source = sources[part.source]
                offset = source.offset + row * part.start
                yield Segment(position=position, nbytes=nbytes, source=source.file, offset=offset, name=name)
            position += nbytes
    else:
        yield Segment(position=position, nbytes=tensor.nbytes, name=name)


def _ones(tensor: PlannedTensor, content: Ones, position: int) -> Iterator[Segment]:
    value, end = one(tensor.dtype, where=tensor.name), position + tensor.nbytes
    place = position + content.start * len(value)
    while place < end:
        yield Segment(position=position, nbytes=place - position, name=tensor.name)
        yield Segment(position=place, nbytes=len(value), data=value, name=tensor.name)
        position = place + len(value)
        place += content.stride * len(value)
    yield Segment(position=position, nbytes=end - position, name=tensor.name)


def _adjoin(first: Segment, second: Segment) -> bool:
    if first.source != second.source:
        return False
    if first.source is None:
        return first.is_zeros and second.is_zeros
    return first.offset + first.nbytes == second.offset


def split(segments: Iterable[Segment], size: int) -> list[list[Segment]]:
    """Lists of at most `size` bytes each, cut at multiples of `BLOCK`, in order."""
    lists: list[list[Segment]] = []
    room = 0
    for segment in segments:
        start = segment.position
        while start < segment.end:
            if room <= 0:
                lists.append([])
                room = size
            stop = segment.end
            if stop - start > room:
                stop = min(stop, -(-(start + room) // BLOCK) * BLOCK)
            lists[-1].append(segment.cut(start, stop))
            room -= stop - start
            start = stop
    return lists
