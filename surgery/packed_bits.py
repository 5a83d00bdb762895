"""Weights whose bytes are not their values: several to a byte, by a code that comes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import PlanError

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

_MARK = ".quant_state.bitsandbytes__"
"""In the name of the tensor with which bitsandbytes says how a weight beside it is packed (nf4, fp4)."""


def refuse_packed(checkpoint: Checkpoint) -> None:
    """Raises `PlanError` for weights in 4 bits of bitsandbytes: a zero byte is two values of -1, not of 0."""
    packed = next((name for name in checkpoint.tensors if _MARK in name), None)
    if packed is not None:
        raise PlanError(
            f"{checkpoint.path}: {packed.partition(_MARK)[0]!r:.200} is packed in 4 bits by bitsandbytes, where no new "
            "block can be made zero. Grow the model as it was before, and quantize what has grown"
        )
