"""What one step costs: floating-point operations, and bytes that are kept for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .quantize import parts_of


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one forward and backward pass."""

    flops: int
    saved_bytes: int
    """Tensors that the forward pass keeps for the backward one, parameters not counted, each storage once."""


def measure_step(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Cost:
    """Run one step and count.

    Args:
        model: Its parameters require gradients or not, as they will in the run.
        loss: Runs the model.
    """
    counter: Any = FlopCounterMode(display=False)
    with counter:
        with keeping(model) as kept:
            value = loss()
        value.backward()
    for parameter in model.parameters():
        parameter.grad = None
    return Cost(flops=int(counter.get_total_flops()), saved_bytes=sum(kept.values()))


@contextmanager
def keeping(model: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Inside, gather what is kept for the backward pass: bytes by storage, those of the model left out."""
    own = {_storage(part) for tensor in (*model.parameters(), *model.buffers()) for part in parts_of(tensor)}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        for part in parts_of(tensor):
            if (storage := _storage(part)) not in own:
                kept[storage] = part.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
