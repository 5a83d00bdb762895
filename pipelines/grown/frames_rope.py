"""RoPE for longer clips, class by class: only the columns that turn with the frame are computed anew.

Shape letters: F latent frames (or patches of them), S tokens of one frame, D width of a head, d columns of it that turn
with the frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from . import rope

METHODS = tuple(rope.METHODS)
HOLDER = "frame_rope"
"""Attribute of a grown model that holds its `FrameRope`."""

Tables = tuple[Tensor, Tensor]
"""Cosines and sines."""
_WIDEST = torch.float32 if torch.backends.mps.is_available() else torch.float64
"""What Wan's class computes its tables in. Asked once: Dynamo can't trace the question."""


class FrameRope(nn.Module):
    """The turn of each frame of a longer clip. Trainable, it has a logarithm for each frequency, 0 at first."""

    def __init__(self, extension: Mapping[str, Any], *, patch: int = 1) -> None:
        """Args: extension: see `frames`. patch: latent frames of one position."""
        super().__init__()
        self.method = str(extension["method"])
        self.base = -(-int(extension["base_frames"]) // patch)
        self.frames = -(-int(extension["frames"]) // patch)
        self.dim = int(extension["dim"])
        self.theta = float(extension["theta"])
        if extension.get("trainable"):
            self.log_scale = nn.Parameter(torch.zeros(self.dim // 2))

    def is_longer(self, frames: int) -> bool:
        """Whether a clip is longer than those that the base was trained on."""
        return frames > self.base

    def stretch(self, freqs: Tensor, frames: int, nominal: Tensor | None = None) -> Tensor:
        """(d/2,) frequencies of a longer clip.

        Args:
            freqs: The stock model's.
            frames: Of the clip.
            nominal: How far one frame turns them, in radians, where that is not `freqs`.
        """
        wanted = max(frames, self.frames)
        if self.method == "none":
            return freqs
        if nominal is None:
            return rope.METHODS[self.method](freqs, self.base, wanted)
        return freqs * rope.factors(self.method, nominal.double(), self.base, wanted).to(freqs)

    def angles(self, positions: Tensor, freqs: Tensor, device: torch.device) -> Tensor:
        """(F, d/2) from (F,) positions and (d/2,) stretched frequencies, both on the CPU and in the stock's dtype."""
        angles = torch.outer(positions, freqs)
        if hasattr(self, "log_scale"):
            dtype = angles.dtype if device.type == "cpu" else torch.float32
            return angles.to(device, dtype) * self.log_scale.to(dtype).exp()
        return angles

    def tables(self, positions: Tensor, freqs: Tensor, device: torch.device) -> Tables:
        """(F, d/2) cosines and sines, float32."""
        angles = self.angles(positions, freqs, device)
        return angles.cos().float().to(device), angles.sin().float().to(device)

    def pairs(self, frames: int, device: torch.device, dtype: torch.dtype, stock: Tensor | None = None) -> Tables:
        """(F, d) cosines and sines, each twice in a row, of RoPE's own frequencies or those given."""
        freqs = self.stretch(rope.frequencies(self.dim, self.theta, dtype) if stock is None else stock, frames)
        cos, sin = self.tables(torch.arange(frames, dtype=dtype), freqs, device)
        return cos.repeat_interleave(2, dim=1), sin.repeat_interleave(2, dim=1)


def replace_columns(stock: Tensor, new: Tensor, start: int = 0) -> Tensor:
    """(F * S, D) with columns `start` to `start` + d of every frame from (F, d)."""
    by_frame = stock.unflatten(0, (new.shape[0], -1))
    columns = new[:, None].expand(-1, by_frame.shape[1], -1).to(stock.dtype)
    end = start + new.shape[1]
    return torch.cat([by_frame[..., :start], columns, by_frame[..., end:]], dim=-1).flatten(0, 1)


@cache
def with_method(stock: type[nn.Module], name: str, function: Callable[..., Any]) -> type[nn.Module]:
    """A subclass of the same name with another method; `function` also takes the stock class's own."""
    # A plain function: Dynamo does not trace `super().forward` of a class that is allowed in its graphs as it is.
    own = getattr(stock, name)

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, own, *args, **kwargs)

    return type(stock.__name__, (stock,), {"__module__": stock.__module__, "__doc__": stock.__doc__, name: run})


def hold(
    model: Any, module: Any, name: str, part: nn.Module, function: Callable[..., Any], method: str = "forward"
) -> None:
    """Give a model a part by a name, and let `function`, which sees the part, take over a method of one module."""
    setattr(model, name, part)
    module.__dict__[name] = part  # not registered twice: it would be saved twice
    stock: Any = type(module)
    module.__class__ = with_method(stock, method, function)


def _install(path: str, forward: Callable[..., Any]) -> Callable[[Any, Mapping[str, Any]], None]:
    def install(model: Any, extension: Mapping[str, Any]) -> None:
        hold(model, getattr(model, path), HOLDER, FrameRope(extension), forward)

    return install


def _wan(self: Any, stock: Callable[..., Any], hidden_states: Tensor) -> Tables:
    """Stock: (1, F * S, 1, D), computed in float64."""
    tables: Tables = stock(self, hidden_states)
    frames = hidden_states.shape[2] // self.patch_size[0]
    if not self.frame_rope.is_longer(frames):
        return tables
    cos, sin = self.frame_rope.pairs(frames, hidden_states.device, _WIDEST)
    return (
        replace_columns(tables[0][0, :, 0], cos)[None, :, None],
        replace_columns(tables[1][0, :, 0], sin)[None, :, None],
    )


def _flat(self: Any, stock: Callable[..., Any], hidden_states: Tensor) -> Tables:
    """HunyuanVideo, EasyAnimate: (F * S, D), computed in float32."""
    tables: Tables = stock(self, hidden_states)
    frames = hidden_states.shape[2] // getattr(self, "patch_size_t", 1)
    if not self.frame_rope.is_longer(frames):
        return tables
    cos, sin = self.frame_rope.pairs(frames, hidden_states.device, torch.float32)
    return replace_columns(tables[0], cos), replace_columns(tables[1], sin)


def _cosmos(self: Any, stock: Callable[..., Any], hidden_states: Tensor, fps: int | None = None) -> Tables:
    """(F * S, D): time, height and width, and all three once more. Positions are in frames of `base_fps`."""
    tables: Tables = stock(self, hidden_states, fps=fps)
    frames = hidden_states.shape[2] // self.patch_size[0]
    if not self.frame_rope.is_longer(frames):
        return tables
    positions = torch.arange(frames, dtype=torch.float32)
    if fps is not None:
        positions = positions / fps * self.base_fps
    half = torch.arange(0, self.dim_t, 2, dtype=torch.float32)[: self.dim_t // 2] / self.dim_t
    freqs = 1.0 / ((10000.0 * self.t_ntk_factor) ** half)
    new = self.frame_rope.tables(positions, self.frame_rope.stretch(freqs, frames), hidden_states.device)
    cos, sin = (
        replace_columns(replace_columns(old, table), table, start=old.shape[1] // 2)
        for old, table in zip(tables, new, strict=True)
    )
    return cos, sin


def _open_sora(self: Any, stock: Callable[..., Any], frames: int) -> Tables:
    """STDiT3: (F, d), computed in float32 from frequencies that are stored."""
    if not self.frame_rope.is_longer(frames):
        return stock(self, frames)  # type: ignore[no-any-return]
    stored = self.freqs.detach().float()
    tables: Tables = self.frame_rope.pairs(frames, stored.device, torch.float32, stored.cpu())
    return tables


def _kandinsky(
    self: Any, stock: Callable[..., Any], shape: Any, pos: Any, scale_factor: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> Tensor:
    """(B, F, H, W, 1, D/2, 2, 2). The stock class has 128 positions in time; here there are as many as frames."""
    frames = shape[1]
    if not self.frame_rope.is_longer(frames):
        return stock(self, shape, pos, scale_factor)  # type: ignore[no-any-return]
    first = tuple(torch.zeros_like(axis) if number == 0 else axis for number, axis in enumerate(pos))
    table: Tensor = stock(self, shape, first, scale_factor)
    count = self.axes_dims[0] // 2  # not from the buffer, which `model.to` may have rounded
    freqs = torch.exp(-math.log(self.max_period) * torch.arange(count, dtype=torch.float32) / count)
    freqs = self.frame_rope.stretch(freqs, frames)
    cos, sin = self.frame_rope.tables(pos[0].float().cpu() / scale_factor[0], freqs, table.device)
    turns = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))[:, None, None, None]
    new = turns.to(table.dtype).expand(*table.shape[:5], -1, -1, -1)
    return torch.cat([new, table[..., new.shape[-3] :, :, :]], dim=-3)


def _ltx(
    self: Any,
    stock: Callable[..., Any],
    hidden_states: Tensor,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    rope_interpolation_scale: Any = None,
    video_coords: Tensor | None = None,
) -> Tables:
    """(B, F * S, D) with the frequencies one after another, of each the three axes. Positions are seconds, as parts of
    `base_num_frames`, and the angles are f (2 p - 1)."""
    args = (num_frames, height, width, rope_interpolation_scale, video_coords)
    tables: Tables = stock(self, hidden_states, *args)
    if video_coords is None:
        frames = num_frames or 0
        grid = self._prepare_video_coords(
            hidden_states.shape[0], frames, height, width, rope_interpolation_scale, hidden_states.device
        )[..., 0]
    else:
        frames = num_frames or int(video_coords[0, 0].unique().numel())
        grid = video_coords[:, 0] / self.base_num_frames
    if not self.frame_rope.is_longer(frames):
        return tables
    count = self.dim // 6
    freqs = self.theta ** torch.linspace(0, 1, count, device=hidden_states.device) * torch.pi / 2
    # From the fastest to the slowest, as the formulas count; here they stand the other way round.
    factors = self.frame_rope.stretch(torch.ones(count), frames, freqs.flip(0).cpu()).flip(0).to(freqs)
    if hasattr(self.frame_rope, "log_scale"):
        factors = factors * self.frame_rope.log_scale.to(freqs).exp()
    angles = freqs * (grid[..., None] * factors * 2 - 1)
    columns = self.dim % 6 + 6 * torch.arange(count, device=angles.device)
    cos, sin = (table.clone() for table in tables)
    for column in (columns, columns + 1):
        cos[..., column], sin[..., column] = angles.cos(), angles.sin()
    return cos, sin


INSTALL: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    **{f"{name}Transformer3DModel": _install("rope", _wan) for name in ("Wan", "WanVACE", "WanAnimate", "SanaVideo")},
    **{f"{name}Transformer3DModel": _install("rope", _flat) for name in ("HunyuanVideo", "HunyuanVideo15")},
    "EasyAnimateTransformer3DModel": _install("rope_embedding", _flat),
    "CosmosTransformer3DModel": _install("rope", _cosmos),
    "Kandinsky5Transformer3DModel": _install("visual_rope_embeddings", _kandinsky),
    "LTXVideoTransformer3DModel": _install("rope", _ltx),
    "STDiT3Transformer3DModel": _install("rope", _open_sora),
}
