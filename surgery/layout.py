"""How a plan's tensors are spread over files, and the header of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .congruence import arrange, shift_of
from .content import Copy, Pieces
from .header import write_header
from .segments import Segment, segments_of

if TYPE_CHECKING:
    from pathlib import Path

    from .checkpoint import Checkpoint
    from .plan import Plan, PlannedTensor
    from .tensor import Tensor

STEM = "diffusion_pytorch_model"
MAX_SHARD = 10 * 1000**3
"""diffusers' default `max_shard_size`, in bytes."""


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """One file to write: `header`, then the bytes of `tensors` in this order."""

    name: str
    header: bytes
    tensors: tuple[PlannedTensor, ...]
    whole: Path | None = None
    """A file of the input that holds just this already: it is carried as it is, its own header too."""
    whole_bytes: int = 0

    @property
    def num_bytes(self) -> int:
        return self.whole_bytes or len(self.header) + sum(tensor.nbytes for tensor in self.tensors)

    def segments(self, sources: Mapping[str, Tensor]) -> list[Segment]:
        """All bytes of the file, in order."""
        if self.whole is not None:
            return [Segment(position=0, nbytes=self.whole_bytes, source=self.whole, name=self.name)]
        head = Segment(position=0, nbytes=len(self.header), data=self.header, name="the header")
        return [head, *segments_of(self.tensors, sources, len(self.header))]


def lay_out(plan: Plan, checkpoint: Checkpoint) -> tuple[OutputFile, ...]:
    """One file where the input is one file; else the input's shards, and one more for each part that is new.

    Shards that nothing is added to keep their size and order, and those that nothing at all happens
    to are carried whole. A new block's tensors stand together, as they stand in the block that they
    copy, so that its file can share the blocks of the disk with it, a download of the growth is small
    and a block can be found by its file. A single file that would exceed `MAX_SHARD` becomes shards
    of at most that.
    """
    metadata = {"format": "pt", **checkpoint.metadata}
    groups = _groups(plan, checkpoint)
    count = len(groups)
    names = [f"{STEM}-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    if count == 1:
        names = [f"{STEM}.safetensors"]
    return tuple(
        _whole(name, group, checkpoint) or output_file(name, group, metadata, checkpoint.tensors)
        for name, group in zip(names, groups, strict=True)
    )


def output_file(
    name: str, tensors: Sequence[PlannedTensor], metadata: Mapping[str, str], sources: Mapping[str, Tensor]
) -> OutputFile:
    """One file of `tensors`, whose contents name tensors of `sources`. It may change their order."""
    ordered = arrange(tensors, sources)
    header = write_header(
        {t.name: (t.dtype, t.shape, t.nbytes) for t in ordered}, metadata, shift=shift_of(ordered, sources)
    )
    return OutputFile(name=name, header=header, tensors=ordered)


def index_of(layout: tuple[OutputFile, ...]) -> dict[str, Any] | None:
    """The shard index, in transformers' and diffusers' form; None for a single file."""
    if len(layout) == 1:
        return None
    return {
        "metadata": {"total_size": sum(tensor.nbytes for file in layout for tensor in file.tensors)},
        "weight_map": {tensor.name: file.name for file in layout for tensor in file.tensors},
    }


def _groups(plan: Plan, checkpoint: Checkpoint) -> list[list[PlannedTensor]]:
    is_single = len(checkpoint.files) <= 1
    if is_single and plan.num_bytes <= MAX_SHARD:
        return [list(plan.tensors)]
    groups: dict[Path | str, list[PlannedTensor]] = {}
    for tensor in plan.tensors:
        groups.setdefault(_home(tensor, checkpoint) or tensor.part or "new", []).append(tensor)
    if is_single:
        return [part for group in groups.values() for part in _in_shards(group)]
    return list(groups.values())


def _home(tensor: PlannedTensor, checkpoint: Checkpoint) -> Path | None:
    """The input's file that a tensor of the input stays in."""
    if tensor.is_new:
        return None
    source = tensor.name
    if isinstance(tensor.content, Copy):
        source = tensor.content.source
    elif isinstance(tensor.content, Pieces) and tensor.content.sources:
        source = tensor.content.sources[0]
    return checkpoint.tensors[source].file if source in checkpoint.tensors else None


def _in_shards(tensors: list[PlannedTensor]) -> list[list[PlannedTensor]]:
    shards: list[list[PlannedTensor]] = []
    size = 0
    for tensor in tensors:
        if not shards or size + tensor.nbytes > MAX_SHARD:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _whole(name: str, tensors: list[PlannedTensor], checkpoint: Checkpoint) -> OutputFile | None:
    """The input's file, if it holds these tensors, under these names, and no others."""
    path = _home(tensors[0], checkpoint) if tensors else None
    held = {key: tensor for key, tensor in checkpoint.tensors.items() if tensor.file == path}
    if path is None or {tensor.name for tensor in tensors} != held.keys():
        return None
    if not all(isinstance(t.content, Copy) and t.content.source == t.name and not t.is_new for t in tensors):
        return None
    last = max(held.values(), key=lambda tensor: (tensor.offset, tensor.nbytes))
    return OutputFile(name=name, header=b"", tensors=tuple(tensors), whole=path, whole_bytes=last.offset + last.nbytes)
