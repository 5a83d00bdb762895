"""Tables of positions for longer clips: sines that a model computes, and tables that were trained.

Shape letters: B samples, F latent frames, S tokens of one frame, C width of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.models.embeddings import (
    SinusoidalPositionalEmbedding,
    get_1d_sincos_pos_embed_from_grid,
    get_3d_sincos_pos_embed,
)
from torch import Tensor, nn

from .frames_given import install_cogvideox
from .frames_rope import INSTALL as ROPES
from .frames_rope import hold

HOLDER = "frame_table"
"""Attribute of a grown model that holds its `FrameTable`."""


class FrameTable(nn.Module):
    """How far a table is stretched. Trainable, it adds a row to each frame of a longer clip, zeros at first."""

    def __init__(self, extension: Mapping[str, Any], width: int) -> None:
        super().__init__()
        self.method = str(extension["method"])
        self.base = int(extension["base_frames"])
        self.frames = int(extension["frames"])
        if extension.get("trainable"):
            self.delta = nn.Parameter(torch.zeros(self.frames, width))

    def is_longer(self, frames: int) -> bool:
        """Whether a clip is longer than those that the base was trained on."""
        return frames > self.base

    def scale(self, frames: int) -> float:
        """What positions are divided by."""
        return max(frames, self.frames) / self.base if self.method == "interpolate" and self.is_longer(frames) else 1.0

    def added(self, frames: int) -> Tensor | float:
        """(F, C) to add; clips beyond the trained rows have their own last ones again."""
        if not hasattr(self, "delta") or not self.is_longer(frames):
            return 0.0
        return self.delta[torch.arange(frames, device=self.delta.device).clamp(max=self.frames - 1)]

    def stretch(self, table: Tensor, frames: int) -> Tensor:
        """(N, ...) rows, of which the first `base` were trained, to (F, ...): linear between the two rows around."""
        rows = table[: self.base].float()
        last = len(rows) - 1
        places = torch.linspace(0, last, frames, device=table.device).clamp(max=last)
        below = places.floor().long()
        share = (places - below).view(-1, *[1] * (rows.ndim - 1))
        return rows[below] * (1 - share) + rows[(below + 1).clamp(max=last)] * share


def _install_latte(model: Any, extension: Mapping[str, Any]) -> None:
    """The stock class adds a table of one length, before the first temporal block, which now adds one of any length."""
    table = FrameTable(extension, model.temp_pos_embed.shape[-1])
    model.temp_pos_embed = torch.zeros_like(model.temp_pos_embed[:, :1])
    hold(model, model.temporal_transformer_blocks[0], HOLDER, table, _latte)


def _latte(self: Any, stock: Callable[..., Any], hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    """(B * S, F, C). A single frame is an image and has no position, as in the stock class."""
    frames = hidden_states.shape[1]
    if frames > 1:
        positions = torch.arange(frames) / self.frame_table.scale(frames)
        sines = get_1d_sincos_pos_embed_from_grid(hidden_states.shape[2], positions, output_type="pt").float()
        sines = sines.to(hidden_states.device) + self.frame_table.added(frames)
        hidden_states = hidden_states + sines.to(hidden_states.dtype)
    return stock(self, hidden_states, *args, **kwargs)


def _install_cogvideox(model: Any, extension: Mapping[str, Any]) -> None:
    if extension["kind"] != "sincos":
        install_cogvideox(model, extension)
    if extension["kind"] == "rope":
        return
    patch = model.patch_embed
    table = FrameTable(extension, patch.embed_dim)
    if extension["kind"] == "learned":
        # At any other length the stock class forgets its own table.
        table.base = (patch.sample_frames - 1) // patch.temporal_compression_ratio + 1
    else:
        # The config's sample_frames are the longer clip's, for the pipeline; the table is the base's.
        patch.sample_frames = (table.base - 1) * patch.temporal_compression_ratio + 1
        size = (patch.sample_height, patch.sample_width, patch.sample_frames)
        patch.register_buffer("pos_embedding", patch._get_positional_embeddings(*size), persistent=False)
    hold(model, patch, HOLDER, table, _cogvideox, method="_get_positional_embeddings")


def _cogvideox(
    self: Any, stock: Callable[..., Any], height: int, width: int, frames: int, device: torch.device | None = None
) -> Tensor:
    """(1, L + F * S, C): zeros for the text, then what is added to each token of the frames. `frames` are not latent.

    The stock class asks for this wherever a clip is not as long as its own table, and then forgets that one.
    """
    table: FrameTable = self.frame_table
    count = (frames - 1) // self.temporal_compression_ratio + 1
    if not table.is_longer(count):
        return stock(self, height, width, frames, device=device)  # type: ignore[no-any-return]
    if self.use_learned_positional_embeddings:
        trained = self.pos_embedding[0, self.max_text_seq_length :].unflatten(0, (table.base, -1))
        rows = table.stretch(trained, count)
    else:
        rows = get_3d_sincos_pos_embed(
            self.embed_dim,
            (width // self.patch_size, height // self.patch_size),
            count,
            self.spatial_interpolation_scale,
            self.temporal_interpolation_scale * table.scale(count),
            device=device,
        )
    added = table.added(count)
    rows = (rows + (added[:, None] if isinstance(added, Tensor) else added)).flatten(0, 1)
    return torch.cat([rows.new_zeros(self.max_text_seq_length, rows.shape[1]), rows])[None]


def _install_cosmos(model: Any, extension: Mapping[str, Any]) -> None:
    ROPES["CosmosTransformer3DModel"](model, extension)
    positions = model.learnable_pos_embed
    if positions is not None:
        hold(model, positions, HOLDER, FrameTable(extension, positions.pos_emb_t.shape[1]), _cosmos)


def _cosmos(self: Any, stock: Callable[..., Any], hidden_states: Tensor) -> Tensor:
    """Cosmos 1 has more rows in time than were trained; a longer clip has the trained ones, stretched."""
    table: FrameTable = self.frame_table
    frames = hidden_states.shape[2] // self.patch_size[0]
    if not table.is_longer(frames):
        return stock(self, hidden_states)  # type: ignore[no-any-return]
    height, width = hidden_states.shape[3] // self.patch_size[1], hidden_states.shape[4] // self.patch_size[2]
    rows = table.stretch(self.pos_emb_t, frames) + table.added(frames)
    sums = rows[:, None, None] + self.pos_emb_h[:height, None] + self.pos_emb_w[:width]
    sums = sums.flatten(0, 2)[None].expand(hidden_states.shape[0], -1, -1)
    # The stock class's norm: a root mean square, not a length.
    norm = self.eps + torch.linalg.vector_norm(sums, dim=-1, keepdim=True, dtype=torch.float32) / sums.shape[-1] ** 0.5
    found: Tensor = (sums / norm).type_as(hidden_states)
    return found


def _install_animatediff(model: Any, extension: Mapping[str, Any]) -> None:
    """Stored tables that train. Ones that do not are the stock class's own."""
    for module in model.modules():
        if isinstance(module, SinusoidalPositionalEmbedding) and extension.get("trainable"):
            table = module.pe
            del module.pe
            module.pe = nn.Parameter(table)


INSTALL: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "CogVideoXTransformer3DModel": _install_cogvideox,
    "CosmosTransformer3DModel": _install_cosmos,
    "LatteTransformer3DModel": _install_latte,
    "MotionAdapter": _install_animatediff,
    "UNetMotionModel": _install_animatediff,
}
