"""ExVideo (Duan et al., arXiv 2406.14130) on Stable Video Diffusion: the extended UNet made from any base.

In each temporal attention block A of the UNet: `A.position_table.weight` (frames, C) in place of sinusoids of the
frames' numbers, and `A.temporal_conv` (weight (C, C, 3, 3, 3), bias (C)), a 3D convolution before its temporal
attention. The table begins as `ping_pong` walks over the base's own sinusoids, and the convolution as the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .content import Ones, Piece, Pieces, Values, Zeros
from .errors import CheckpointError, PlanError
from .extension import OPERATION
from .index import CLASS_NAME
from .pingpong import ping_pong
from .plan import Plan, PlannedTensor

if TYPE_CHECKING:
    from .anatomy import Anatomy
    from .checkpoint import Checkpoint
    from .tensor import Tensor

BASE_CLASS = "UNetSpatioTemporalConditionModel"
CLASS = "ExVideoUNetSpatioTemporalConditionModel"
PIPELINE = "ExVideoPipeline"
FRAMES_KEY = "num_position_frames"
TABLE, CONV_WEIGHT, CONV_BIAS = "position_table.weight", "temporal_conv.weight", "temporal_conv.bias"
BLOCK_PARTS = ("position_table", "temporal_conv", "time_pos_embed", "temporal_transformer_blocks")
"""Of a temporal attention block: what ExVideo trains."""
_EMBED = ".time_pos_embed.linear_1.weight"
_PERIOD = 10000.0

Sinusoids = Callable[[Sequence[int], int], bytes]
"""Positions and width -> their sinusoids, (positions, width), float32, little-endian."""


@dataclass(frozen=True, kw_only=True)
class TemporalBlock:
    """A temporal attention block of the UNet."""

    path: str
    width: int
    dtype: str
    """Of its weights."""


def sinusoids(positions: Sequence[int], width: int) -> bytes:
    """diffusers' `Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)`: cosines, then sines.

    Frequencies and angles are float32, as there; the cosines and sines are the nearest float32. torch's own may
    differ from them in the last bit, from one processor to the next too, so that a table that shall be the base's to
    the bit must come from torch.
    """
    import numpy as np

    half = width // 2
    exponents = np.float32(-math.log(_PERIOD)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = (np.array(positions, dtype=np.float32)[:, None] * frequencies[None]).astype(np.float64)
    table = np.concatenate([np.cos(angles), np.sin(angles), np.zeros((len(positions), width % 2))], axis=1)
    return table.astype("<f4").tobytes()


def temporal_blocks(checkpoint: Checkpoint) -> tuple[TemporalBlock, ...]:
    """The temporal attention blocks, in the order of their tensors. Raises `CheckpointError` if there is none."""
    found = tuple(
        TemporalBlock(path=name.removesuffix(_EMBED), width=tensor.shape[1], dtype=tensor.dtype)
        for name, tensor in checkpoint.tensors.items()
        if name.endswith(_EMBED) and len(tensor.shape) == 2
    )
    if not found:
        raise CheckpointError(f"{checkpoint.path}: has no temporal attention blocks, so it is no UNet of SVD's kind")
    return found


def plan_exvideo(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    num_frames: int,
    *,
    table_of: Sinusoids = sinusoids,
    base_frames: int | None = None,
) -> Plan:
    """Plan the extension to clips of up to `num_frames` frames.

    Args:
        checkpoint: Stable Video Diffusion's UNet, or one that was extended before and shall hold more frames.
        anatomy: Its architecture.
        num_frames: Rows of the position tables.
        table_of: Makes sinusoids. `modelgrow.pipelines.exvideo.sinusoids` has torch's.
        base_frames: Of the clips that the base was trained on; what its config says if None.

    Raises:
        PlanError: There are too few frames to extend to.
        CheckpointError: The checkpoint is no UNet of SVD's kind.
    """
    if anatomy.class_name == CLASS:
        return _lengthen(checkpoint, num_frames)
    check_base_class(anatomy)
    if num_frames < 2:
        raise PlanError(f"{num_frames} frames: ExVideo's convolution over time needs clips of two at least")
    base_frames = base_frames or int(anatomy.value(checkpoint.config, "num_frames"))
    blocks = temporal_blocks(checkpoint)
    positions = ping_pong(num_frames, base_frames)
    return extension(
        checkpoint,
        [
            new
            for block in blocks
            for new in (
                _new(block, TABLE, "F32", (num_frames, block.width), Values(data=table_of(positions, block.width))),
                *identity_conv(block),
            )
        ],
        num_frames,
        options={"to": num_frames},
        notes=_notes(num_frames, base_frames),
    )


def check_base_class(anatomy: Anatomy) -> None:
    """Raises `PlanError` for another architecture than SVD's."""
    if anatomy.class_name != BASE_CLASS:
        raise PlanError(f"{anatomy.class_name}: ExVideo extends {BASE_CLASS}, Stable Video Diffusion's UNet, only")


def extension(
    checkpoint: Checkpoint,
    tensors: Sequence[PlannedTensor],
    num_frames: int,
    *,
    options: dict[str, object],
    notes: tuple[str, ...],
    settings: Mapping[str, object] | None = None,
) -> Plan:
    """The base with these tensors beside its own, or in place of its own of the same names.

    `settings`: of the pipeline around it.
    """
    given = {tensor.name: tensor for tensor in tensors}
    kept = [given.pop(name, PlannedTensor.copy_of(tensor, name)) for name, tensor in checkpoint.tensors.items()]
    class_name = checkpoint.class_name or BASE_CLASS
    generated = class_name.removesuffix(BASE_CLASS)  # "Grown" where the base has a slot for a language model
    return Plan(
        operation=OPERATION,
        options=options,
        class_name=class_name,
        tensors=(*kept, *given.values()),
        config_edits={CLASS_NAME: generated + CLASS, FRAMES_KEY: num_frames},
        pipeline_edits={CLASS_NAME: generated + PIPELINE, **(settings or {})},
        blocks=tuple(f"{block.path}.{part}" for block in temporal_blocks(checkpoint) for part in BLOCK_PARTS),
        notes=notes,
    )


def identity_conv(block: TemporalBlock) -> tuple[PlannedTensor, PlannedTensor]:
    """A convolution that changes nothing: 1 in the middle of each channel's own kernel."""
    width, kernel = block.width, 27
    middle = Ones(start=kernel // 2, stride=kernel * (width + 1))
    return (
        _new(block, CONV_WEIGHT, block.dtype, (width, width, 3, 3, 3), middle),
        _new(block, CONV_BIAS, block.dtype, (width,), Zeros()),
    )


def _new(
    block: TemporalBlock, name: str, dtype: str, shape: tuple[int, ...], content: Values | Ones | Zeros
) -> PlannedTensor:
    return PlannedTensor(
        name=f"{block.path}.{name}", dtype=dtype, shape=shape, content=content, is_new=True, part=OPERATION
    )


def _lengthen(checkpoint: Checkpoint, num_frames: int) -> Plan:
    """More rows for an extended UNet: they walk over the rows that it has as ExVideo's first ones do over SVD's."""
    tables = {f"{block.path}.{TABLE}" for block in temporal_blocks(checkpoint)}
    rows = {checkpoint.tensors[name].shape[0] for name in tables if name in checkpoint.tensors}
    if len(rows) != 1 or not tables <= checkpoint.tensors.keys():
        raise CheckpointError(f"{checkpoint.path}: config.json says {CLASS}, and the position tables are not all there")
    held = rows.pop()
    if num_frames <= held:
        raise PlanError(
            f"{checkpoint.path}: makes clips of up to {held} frames already, shorter ones with the same weights; "
            f"ask for more than {held}"
        )
    tensors = [
        _longer(name, tensor, num_frames) if name in tables else PlannedTensor.copy_of(tensor, name)
        for name, tensor in checkpoint.tensors.items()
    ]
    return Plan(
        operation=OPERATION,
        options={"to": num_frames},
        class_name=checkpoint.class_name or CLASS,
        tensors=tuple(tensors),
        config_edits={FRAMES_KEY: num_frames},
        rebuilt={name: (Piece(source=name, start=0, stop=held),) for name in tables},
        notes=(
            f"clips of up to {held} frames stay the same to the bit; longer ones begin with positions that repeat the "
            "tables' rows back and forth, and want training",
        ),
    )


def _longer(name: str, table: Tensor, num_frames: int) -> PlannedTensor:
    """A table (rows, C) that walks over its own rows, (num_frames, C)."""
    parts: list[Piece] = []
    for row in ping_pong(num_frames, table.shape[0]):
        if parts and parts[-1].stop == row:
            parts[-1] = replace(parts[-1], stop=row + 1)
        else:
            parts.append(Piece(source=name, start=row, stop=row + 1))
    content = Pieces(parts=tuple(parts))
    return PlannedTensor(name=name, dtype=table.dtype, shape=(num_frames, *table.shape[1:]), content=content)


def _notes(num_frames: int, base_frames: int) -> tuple[str, ...]:
    same = f"clips of up to {min(base_frames, num_frames)} frames, as the base was trained on, stay the same to the bit"
    if num_frames <= base_frames:
        return (same,)
    return (
        f"{same}; longer ones differ by design, for the position ids repeat back and forth, and flicker until they "
        "are trained",
    )
