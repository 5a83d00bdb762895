"""The cached trunk: after suffix growth, everything before the first new block is frozen and can be computed once.

For K draws of noise and timestep per clip the trunk's output is kept in bfloat16; a step then runs the
embeddings and the new blocks only. The price: K fixed draws instead of fresh ones.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from modelgrow.surgery import TrainError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelgrow.surgery import Record

Output = tuple[torch.Tensor, ...]


def trunk_depth(record: Record | None, trained: list[str]) -> tuple[str, int]:
    """The stack that grew by suffix, and how many blocks come before the first new one.

    Raises:
        TrainError: Something before the last blocks of one stack trains.
    """
    copies = record.steps[-1].copied_from if record and record.steps else {}
    for stack, places in copies.items():
        first = min(places, default=0)
        inside = [name for name in trained if name.startswith(f"{stack}.")]
        if len(inside) == len(trained) and all(int(name[len(stack) + 1 :].split(".")[0]) >= first for name in inside):
            return stack, first
    raise TrainError("cache_trunk needs a model grown by suffix of which only the new blocks train")


class _Replay(nn.Module):
    """Stands in for the trunk: answers with what it once said."""

    def __init__(self) -> None:
        super().__init__()
        self.output: Any = None

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.output


@contextmanager
def recorded(model: nn.Module, stack: str, depth: int) -> Iterator[list[Any]]:
    """Inside, every call of the model appends the trunk's output to the list."""
    outputs: list[Any] = []
    blocks = model.get_submodule(stack)
    handle = blocks[depth - 1].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def replayed(model: nn.Module, stack: str, depth: int, output: Any) -> Iterator[None]:
    """Inside, the trunk is not computed: its last block answers `output`, those before it are gone."""
    parent, _, name = stack.rpartition(".")
    owner = model.get_submodule(parent) if parent else model
    blocks = getattr(owner, name)
    replay = _Replay()
    replay.output = output
    setattr(owner, name, nn.ModuleList([replay, *blocks[depth:]]))
    try:
        yield
    finally:
        setattr(owner, name, blocks)
