"""The tensors of a longer clip: parameters that are new, and tables that are longer.

Shape letters: F latent frames, d channels of a head that turn with the frame, C width of the model.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from .content import Piece, Pieces, Values, Zeros
from .errors import CheckpointError
from .extension import KEY
from .plan import PlannedTensor
from .positions_tables import continued, slowed, stretched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .anatomy import Anatomy
    from .checkpoint import Checkpoint
    from .extension import Length
    from .positions import Frames
    from .tensor import Tensor

ROPE = "frame_rope.log_scale"
"""(d/2,): the logarithm of what each frequency is multiplied by."""
TABLE = "frame_table.delta"
"""(F, C): what each latent frame of a longer clip has added."""
_COSMOS_ROWS = "learnable_pos_embed.pos_emb_t"
_WIDTH = "num_attention_heads * attention_head_dim"

Rebuilt = dict[str, tuple[Piece, ...]]


def new_tensors(
    checkpoint: Checkpoint, anatomy: Anatomy, frames: Frames, length: Length, edits: Mapping[str, Any]
) -> tuple[PlannedTensor, ...]:
    """Parameters of trainable positions: zeros, which change nothing."""
    extension = edits.get(KEY)
    if not extension or not extension["trainable"] or frames.kind == "table":
        return ()
    dtype = next(iter(checkpoint.dtypes))
    shapes: dict[str, tuple[int, ...]] = {}
    if frames.kind in ("rope", "learned"):
        shapes[ROPE] = (extension["dim"] // 2,)
    if frames.kind in ("sincos", "learned"):
        shapes[TABLE] = (length.latents, _width(checkpoint, anatomy))
    return tuple(
        PlannedTensor(name=name, dtype=dtype, shape=shape, content=Zeros(), is_new=True, part="frames")
        for name, shape in shapes.items()
        if name not in checkpoint.tensors
    )


def _width(checkpoint: Checkpoint, anatomy: Anatomy) -> int:
    values = [anatomy.value(checkpoint.config, key) for key in _WIDTH.split(" * ")]
    if not all(type(value) is int and value > 0 for value in values):
        raise CheckpointError(f"{checkpoint.path}: config.json's {_WIDTH} is {values!r:.60}, expected two numbers")
    return math.prod(values)


def tables(
    checkpoint: Checkpoint, frames: Frames, length: Length, method: str, *, trainable: bool
) -> tuple[dict[str, PlannedTensor], Rebuilt]:
    """Tensors of the input that stand in the output with other values or more rows, and how to make them again."""
    changed: dict[str, PlannedTensor] = {}
    rebuilt: Rebuilt = {}
    for name, tensor in checkpoint.tensors.items():
        if frames.tables is not None and fnmatchcase(name, frames.tables):
            changed |= _stored(name, tensor, frames, length, method, trainable=trainable)
        elif name in (TABLE, _COSMOS_ROWS) and tensor.shape[0] < length.latents:
            rows = Piece(source=name, start=0, stop=tensor.shape[0])
            zeros = Piece(source=None, start=0, stop=length.latents - tensor.shape[0])
            changed[name] = PlannedTensor(
                name=name,
                dtype=tensor.dtype,
                shape=(length.latents, *tensor.shape[1:]),
                content=Pieces(parts=(rows, zeros)),
            )
            rebuilt[name] = (rows,)
    return changed, rebuilt


def _stored(
    name: str, tensor: Tensor, frames: Frames, length: Length, method: str, *, trainable: bool
) -> dict[str, PlannedTensor]:
    if len(tensor.shape) != 3:
        raise CheckpointError(f"{tensor.file}: {name!r} has the shape {list(tensor.shape)}, expected three sides")
    shape = tensor.shape
    if frames.kind == "weights":
        if method == "none" and not trainable:
            return {}
        values = slowed(tensor, length.stretch if method == "interpolate" else 1.0, name)
    elif method == "interpolate":
        shape = (shape[0], length.latents, shape[2])
        values = stretched(tensor, length.latents, min(length.base_latents, tensor.shape[1]), name)
    else:
        shape = (shape[0], max(length.latents, shape[1]), shape[2])
        if shape == tensor.shape and not trainable:
            return {}
        values = continued(tensor, shape[1], name)
    return {name: PlannedTensor(name=name, dtype=tensor.dtype, shape=shape, content=Values(data=values))}
