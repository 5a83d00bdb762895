"""How a plan's tensors are spread over files, and the header of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .header import DTYPE_BITS, write_header
from .plan import Copy

if TYPE_CHECKING:
    from pathlib import Path

    from .checkpoint import Checkpoint
    from .header import Tensor
    from .plan import Plan, PlannedTensor

STEM = "diffusion_pytorch_model"


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """One file to write: `header`, then the bytes of `tensors` in this order."""

    name: str
    header: bytes
    tensors: tuple[PlannedTensor, ...]

    @property
    def num_bytes(self) -> int:
        return len(self.header) + sum(tensor.nbytes for tensor in self.tensors)


def lay_out(plan: Plan, checkpoint: Checkpoint) -> tuple[OutputFile, ...]:
    """One file where the input is one file; else the input's shards, and one more for each part that is new.

    Shards that nothing is added to keep their size and order, and a new block's tensors stand
    together, so a download of the growth is small and a block can be found by its file.
    """
    metadata = {"format": "pt", **checkpoint.metadata}
    groups = _groups(plan, checkpoint)
    if len(groups) == 1:
        return (output_file(f"{STEM}.safetensors", groups[0], metadata, checkpoint.tensors),)
    count = len(groups)
    return tuple(
        output_file(f"{STEM}-{i:05d}-of-{count:05d}.safetensors", group, metadata, checkpoint.tensors)
        for i, group in enumerate(groups, 1)
    )


def index_of(layout: tuple[OutputFile, ...]) -> dict[str, Any] | None:
    """The shard index, in transformers' and diffusers' form; None for a single file."""
    if len(layout) == 1:
        return None
    return {
        "metadata": {"total_size": sum(tensor.nbytes for file in layout for tensor in file.tensors)},
        "weight_map": {tensor.name: file.name for file in layout for tensor in file.tensors},
    }


def _groups(plan: Plan, checkpoint: Checkpoint) -> list[list[PlannedTensor]]:
    if len(checkpoint.files) <= 1:
        return [list(plan.tensors)]
    groups: dict[Path | str, list[PlannedTensor]] = {}
    for tensor in plan.tensors:
        if isinstance(tensor.content, Copy) and not tensor.is_new:
            key: Path | str = checkpoint.tensors[tensor.content.source].file
        else:
            key = tensor.part or "new"
        groups.setdefault(key, []).append(tensor)
    return list(groups.values())


def output_file(
    name: str, tensors: Sequence[PlannedTensor], metadata: Mapping[str, str], sources: Mapping[str, Tensor]
) -> OutputFile:
    """One file of `tensors`, whose contents name tensors of `sources`."""
    # Wider dtypes first, as the official writer has it: every tensor stays aligned to its own size.
    ordered = tuple(sorted(tensors, key=lambda tensor: -DTYPE_BITS[tensor.dtype]))
    header = write_header({t.name: (t.dtype, t.shape, t.nbytes) for t in ordered}, metadata)
    return OutputFile(name=name, header=header, tensors=ordered)
