"""RoPE for longer clips where the pipeline, and not the model, makes the tables: CogVideoX and Allegro.

Shape letters: F latent frames (or patches of them), S tokens of one frame, D width of a head, d columns of it that turn
with the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from . import rope
from .frames_rope import HOLDER, FrameRope, replace_columns


def install_cogvideox(model: Any, extension: Mapping[str, Any]) -> None:
    setattr(model, HOLDER, FrameRope(extension, patch=model.config.patch_size_t or 1))


def _adjust_cogvideox(model: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The pipeline makes the tables, (F * S, D), in float32."""
    tables, holder = kwargs.get("image_rotary_emb"), getattr(model, HOLDER, None)
    patch = model.config.patch_size_t or 1
    frames = -(-kwargs["hidden_states"].shape[1] // patch)
    if holder is None or tables is None or not holder.is_longer(frames):
        return kwargs
    cos, sin = holder.pairs(frames, tables[0].device, torch.float32)
    return {**kwargs, "image_rotary_emb": (replace_columns(tables[0], cos), replace_columns(tables[1], sin))}


def _install_allegro(model: Any, extension: Mapping[str, Any]) -> None:
    setattr(model, HOLDER, FrameRope(extension))


def _adjust_allegro(model: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The pipeline makes (F, d) tables for each axis, d/2 columns and the same once more, and the tokens' places."""
    if kwargs.get("image_rotary_emb") is None:
        return kwargs
    (time, *space), places = kwargs["image_rotary_emb"]
    holder, frames = getattr(model, HOLDER), time[0].shape[0]
    if not holder.is_longer(frames):
        return kwargs
    step = 1 / model.config.interpolation_scale_t
    positions = torch.arange(frames, dtype=torch.float32) / model.config.interpolation_scale_t
    freqs = rope.frequencies(holder.dim, holder.theta, torch.float32)
    freqs = holder.stretch(freqs, frames, nominal=freqs * step)
    cos, sin = (torch.cat([table, table], dim=-1) for table in holder.tables(positions, freqs, time[0].device))
    return {**kwargs, "image_rotary_emb": (((cos, sin), *space), places)}


INSTALL: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {"AllegroTransformer3DModel": _install_allegro}
ADJUST: dict[str, Callable[[Any, dict[str, Any]], dict[str, Any]]] = {
    "CogVideoXTransformer3DModel": _adjust_cogvideox,
    "AllegroTransformer3DModel": _adjust_allegro,
}
