"""The tensors of a slot: ones and zeros for norms, zeros for what goes out, and random values for the rest.

Shape letters: C width of a block's video stream, D width of the language model's states, W width of the slots.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from .content import Content, Drawn, Values, Zeros
from .drawn import seed_of
from .identity import one
from .layout import MAX_SHARD
from .plan import PlannedTensor
from .slot import MODULE, OUT, PROJECTOR
from .tensor import num_bytes


def projector(dim: int, width: int, dtype: str, seed: int) -> Iterator[PlannedTensor]:
    """From D to W: a norm, an MLP of two layers, and the learned state that stands for no text."""
    yield from _norm(f"{PROJECTOR}.norm", dim, dtype)
    yield from _linear(f"{PROJECTOR}.linear_1", dim, width, dtype, seed)
    yield from _linear(f"{PROJECTOR}.linear_2", width, width, dtype, seed)
    yield _drawn(f"{PROJECTOR}.null", (dim,), dim, dtype, seed)


def slot(block: str, dim: int, width: int, dtype: str, seed: int) -> Iterator[PlannedTensor]:
    """Behind the block of that name, of width C = `dim`: to W and back. What goes out is zero, weight and bias."""
    yield from _norm(f"{block}.{MODULE}.norm", dim, dtype)
    for name, columns in (("to_q", dim), ("to_k", width), ("to_v", width)):
        yield _drawn(f"{block}.{MODULE}.{name}.weight", (width, columns), columns, dtype, seed)
    yield _new(f"{block}.{OUT}.weight", (dim, width), dtype, Zeros())
    yield _new(f"{block}.{OUT}.bias", (dim,), dtype, Zeros())


def in_parts(tensors: Iterable[PlannedTensor]) -> Iterator[PlannedTensor]:
    """The tensors in as few parts as shards of a sharded output can hold."""
    total = 0
    for tensor in tensors:
        total += tensor.nbytes
        yield replace(tensor, part=f"slot {total // MAX_SHARD}")


def _norm(name: str, dim: int, dtype: str) -> Iterator[PlannedTensor]:
    yield _new(f"{name}.weight", (dim,), dtype, Values(data=one(dtype, where=name) * dim))
    yield _zero_values(f"{name}.bias", dim, dtype)


def _linear(name: str, columns: int, rows: int, dtype: str, seed: int) -> Iterator[PlannedTensor]:
    yield _drawn(f"{name}.weight", (rows, columns), columns, dtype, seed)
    yield _zero_values(f"{name}.bias", rows, dtype)


def _zero_values(name: str, dim: int, dtype: str) -> PlannedTensor:
    """Values, and not `Zeros`: the function does not depend on their being zero, so that no record promises it."""
    return _new(name, (dim,), dtype, Values(data=bytes(num_bytes(dtype, (dim,), where=name))))


def _drawn(name: str, shape: tuple[int, ...], fan_in: int, dtype: str, seed: int) -> PlannedTensor:
    """Variance 1 / fan_in (LeCun et al., "Efficient BackProp", 1998): inputs of variance 1 give outputs of it."""
    return _new(name, shape, dtype, Drawn(seed=seed_of(seed, name), bound=math.sqrt(3 / fan_in)))


def _new(name: str, shape: tuple[int, ...], dtype: str, content: Content) -> PlannedTensor:
    return PlannedTensor(name=name, dtype=dtype, shape=shape, content=content, is_new=True)
