"""Whether a tensor of a plan can be made of what the plan says: sources that are there, dtypes and shapes that fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .content import Copy, Drawn, Ones, Pieces, Stored, Values, Zeros
from .drawn import DRAWABLE
from .errors import PlanError
from .identity import one
from .tensor import num_bytes

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .plan import PlannedTensor
    from .tensor import Tensor


def check_content(tensor: PlannedTensor, checkpoint: Checkpoint) -> None:
    """Raises `PlanError` if a tensor can't be made of its content: a source is missing or does not fit."""
    content = tensor.content
    if isinstance(content, Copy):
        source = _source(tensor, content.source, checkpoint)
        if (source.dtype, source.shape) != (tensor.dtype, tensor.shape):
            raise PlanError(
                f"{tensor.name!r} is planned as {tensor.dtype} {list(tensor.shape)}, its source "
                f"{content.source!r} is {source.dtype} {list(source.shape)}"
            )
    elif isinstance(content, Stored):
        if (content.tensor.dtype, content.tensor.shape) != (tensor.dtype, tensor.shape):
            raise PlanError(
                f"{tensor.name!r} is planned as {tensor.dtype} {list(tensor.shape)}, in {content.tensor.file} it is "
                f"{content.tensor.dtype} {list(content.tensor.shape)}"
            )
    elif isinstance(content, Pieces):
        _check_pieces(tensor, content, checkpoint)
    elif isinstance(content, Ones):
        one(tensor.dtype, where=tensor.name)
    elif isinstance(content, Zeros) and tensor.dtype == "F8_E8M0":
        raise PlanError(f"{tensor.name!r} should be zero, and its dtype F8_E8M0 can't hold a zero")
    elif isinstance(content, Drawn) and tensor.dtype not in DRAWABLE:
        raise PlanError(f"{tensor.name!r} can't be drawn in {tensor.dtype}; that can be done in {', '.join(DRAWABLE)}")
    elif isinstance(content, Values) and len(content.data) != tensor.nbytes:
        raise PlanError(f"{tensor.name!r} takes {tensor.nbytes} bytes, its values have {len(content.data)}")


def _check_pieces(tensor: PlannedTensor, content: Pieces, checkpoint: Checkpoint) -> None:
    if not tensor.shape or sum(part.num_rows for part in content.parts) != tensor.shape[0]:
        raise PlanError(f"{tensor.name!r}: its pieces do not make up its shape {list(tensor.shape)}")
    num_bytes(tensor.dtype, tensor.shape[1:], where=f"a row of {tensor.name!r}")
    for part in content.parts:
        if part.source is None:
            if tensor.dtype == "F8_E8M0":
                raise PlanError(f"{tensor.name!r} should have zeros, and its dtype F8_E8M0 can't hold a zero")
            continue
        source = _source(tensor, part.source, checkpoint)
        if (source.dtype, source.shape[1:]) != (tensor.dtype, tensor.shape[1:]) or part.stop > source.shape[0]:
            raise PlanError(
                f"{tensor.name!r} is planned as {tensor.dtype} {list(tensor.shape)} with rows {part.start} to "
                f"{part.stop} of {part.source!r}, which is {source.dtype} {list(source.shape)}"
            )


def _source(tensor: PlannedTensor, name: str, checkpoint: Checkpoint) -> Tensor:
    source = checkpoint.tensors.get(name)
    if source is None:
        raise PlanError(f"{tensor.name!r} copies {name!r}, which {checkpoint.path} lacks")
    return source
