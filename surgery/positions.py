"""How long a clip can be: what an architecture declares in `[frames]`, and the arithmetic of its VAE.

Frames are those that a user sees; latent frames are what the model denoises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import AnatomyError

KINDS = ("", "none", "rope", "sincos", "learned", "table", "fixed", "weights", "config", "exvideo")
"""Where positions in time live. "none": it makes images. "rope": turned queries and keys. "sincos": sines that are
computed. "learned": a trained table, with RoPE or without. "table": sines that are stored; "fixed": for one length
and no other. "weights": trained frequencies. "config": config keys alone. "exvideo": SVD."""
METHODS = ("none", "interpolate", "ntk", "yarn", "riflex")
"""See `pipelines/grown/rope.py`, which has the formulas."""

ROPE_DIMS: dict[str, Callable[[Any], int]] = {
    "d - 4 * (d // 6)": lambda d: d - 4 * (d // 6),
    "d // 4": lambda d: d // 4,
    "d // 3": lambda d: d // 3,
    "d[0]": lambda d: int(d[0]),
    "2 * (d // 6)": lambda d: 2 * (d // 6),
    "d": int,
}
"""How many channels turn with the frame, half as many frequencies. `d` is the config key `rope_key`, which may also be
two keys with " * " or " // " between them."""

VAE_STRIDES = ("scale_factor_temporal", "temporal_compression_ratio")
"""What VAEs' configs call the frames of a latent frame."""


@dataclass(frozen=True, kw_only=True)
class FramesVariant:
    """What else bounds the length of a clip under some config values; a key that is left out stays as it is."""

    when: Mapping[str, Any]
    kind: str | None = None
    vae: str | None = None
    trained_frames: int | None = None
    method: str | None = None
    methods: tuple[str, ...] | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Frames:
    """What bounds the length of a clip, and how `grow extend-frames` lifts it."""

    unit: str
    note: str
    limit_key: str | None = None
    """Config key that holds a hard limit, in latent frames (its first number, where it is a list)."""
    trained_key: str | None = None
    """Config key that holds the length the model was trained at."""
    kind: str = ""
    """Where positions live: one of `KINDS`, or "" where nobody has said."""
    vae: str = "k"
    """Lengths that the VAE decodes: "4k+1", "8k+1", "4k" and so on; "k" is any. The first number is its stride. "17:5"
    is any, too, and each 17 frames make 5 latent ones, of which the first stands for one frame."""
    trained_frames: int | None = None
    """Frames, not latent ones, of the clips that it was trained on, where no config key says it."""
    method: str = "none"
    """What `extend-frames` does unless it is told otherwise; one of `methods`."""
    methods: tuple[str, ...] = ("none",)
    reason: str = ""
    """Why that method."""
    default_key: str | None = None
    """Config key from which the stock pipeline takes the length of a clip that nobody gave."""
    scale_keys: tuple[str, ...] = ()
    """Config keys that "interpolate" multiplies by the stretch."""
    tables: str | None = None
    """Pattern of the tensors that hold a table of positions, or frequencies; `*` is any part of a name."""
    rope_dim: str | None = None
    """Channels of a head that turn with the frame: a formula in `positions.ROPE_DIMS`."""
    rope_key: str = "attention_head_dim"
    """Config key that the formula reads as `d`."""
    theta: int = 10000
    theta_key: str | None = None
    """Config key of RoPE's base, where it has one."""
    variants: tuple[FramesVariant, ...] = ()

    def under(self, variant: FramesVariant) -> Frames:
        """With what a variant says instead."""
        given = {item.name: getattr(variant, item.name) for item in fields(variant) if item.name != "when"}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def decoded_by(self, vae: Mapping[str, Any]) -> Frames:
        """With the stride that a VAE's own config gives, which may be another than its family's."""
        halvings, patch = vae.get("spatio_temporal_scaling"), vae.get("patch_size_t")  # LTX
        told = [vae[key] for key in VAE_STRIDES if isinstance(vae.get(key), int | float)]
        if not told and isinstance(halvings, list | tuple):
            told = [(patch if type(patch) is int else 1) * 2 ** sum(map(bool, halvings))]
        stride = told[0] if told else 0
        family, is_one, first = self.vae.partition("k")
        if not is_one or not family or stride != int(stride) or stride < 1:
            return self
        return replace(self, vae=f"{int(stride)}k{first}")

    @property
    def _numbers(self) -> tuple[int, int]:
        """Frames per latent frame, and the frames that the first one holds beyond: 1 in causal VAEs, else 0."""
        stride, _, first = self.vae.partition("k")
        return int(stride or 1), int(first or 0)

    def fit(self, num_frames: int) -> int:
        """The shortest length that the VAE decodes and that has at least so many frames."""
        if ":" in self.vae:
            return num_frames
        stride, first = self._numbers
        return max(-(-(num_frames - first) // stride), 1 - first) * stride + first

    def latents(self, num_frames: int) -> int:
        """Latent frames of a clip of a length that the VAE decodes."""
        if ":" in self.vae:
            frames, latents = map(int, self.vae.split(":"))
            groups, rest = divmod(num_frames, frames)
            return groups * latents + -(-rest // ((frames - 1) // (latents - 1)))
        stride, first = self._numbers
        return (num_frames - first) // stride + first

    def pixels(self, latents: int) -> int:
        """The most frames that so many latent ones make."""
        if ":" in self.vae:
            frames, count = map(int, self.vae.split(":"))
            groups, rest = divmod(latents, count)
            return groups * frames + rest * ((frames - 1) // (count - 1))
        stride, first = self._numbers
        return (latents - first) * stride + first


def check_frames(frames: Frames, where: str) -> None:
    """Raises `AnatomyError` for a declaration that can't be meant, in any of its variants."""
    for one in (frames, *(frames.under(variant) for variant in frames.variants)):
        _check(one, where)


def _check(frames: Frames, where: str) -> None:
    if frames.kind not in KINDS:
        raise AnatomyError(f"{where}: kind is {frames.kind!r}, expected one of {', '.join(filter(None, KINDS))}")
    if not re.fullmatch(r"[1-9][0-9]?k(\+1)?|k|[1-9][0-9]?:[2-9]", frames.vae):
        raise AnatomyError(f"{where}: vae is {frames.vae!r}, expected such as '4k+1', '4k', or 'k' for any length")
    unknown = [method for method in (frames.method, *frames.methods) if method not in METHODS]
    if unknown or frames.method not in frames.methods:
        raise AnatomyError(
            f"{where}: method {(unknown or [frames.method])[0]!r} is not one of {', '.join(METHODS)} that methods lists"
        )
    if frames.kind == "rope" and frames.rope_dim is None:
        raise AnatomyError(f"{where}: kind is 'rope', and rope_dim does not say how many channels turn with the frame")
