"""From clips to what a model trains on: latents and text states, a shard at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from modelgrow.surgery import DataError

from .clip import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from .buckets import Bucket
    from .clip import Clip, ClipSource


class Encoder(Protocol):
    """A pipeline's VAE and text encoders. What it gives is kept as it is, in its dtype.

    It may have `encode_conditions(pixels, frame_rates)` besides: what the model reads of the clips themselves, as text
    states are, of which only those whose names end in "latents" depend on the clips' size.
    """

    @property
    def fingerprint(self) -> str:
        """Equal for two encoders that give the same."""

    def encode_video(self, pixels: torch.Tensor) -> torch.Tensor:
        """`(B, 3, T, H, W)` float32 in [-1, 1] to latents `(B, C, F, h, w)`."""

    def encode_text(self, captions: list[str]) -> dict[str, torch.Tensor]:
        """Text states by name. The first axis of each is B; the others do not depend on the captions."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A shard: `latents`, `text.NAME` with a row for every key, `long.NAME` with one for every key in `long_keys`."""

    tensors: dict[str, torch.Tensor]
    keys: tuple[str, ...]
    long_keys: tuple[str, ...]
    refused: tuple[Refused, ...]


def encode_clips(
    source: ClipSource, clips: Sequence[Clip], bucket: Bucket, encoder: Encoder, *, batch_size: int
) -> Encoded:
    """Encode clips at a bucket's size. One that can't be decoded is refused, and the others go on.

    Raises:
        DataError: The encoder's text states have changing shapes.
    """
    parts: list[dict[str, torch.Tensor]] = []
    keys: list[str] = []
    refused: list[Refused] = []
    for start in range(0, len(clips), batch_size):
        read = list(_read(source, clips[start : start + batch_size], bucket, refused))
        if not read:
            continue
        pixels = torch.stack([to_pixels(frames) for _, frames in read])
        captions = [clip.caption for clip, _ in read]
        rates = [clip.fps for clip, _ in read]
        parts.append(
            {
                "latents": encoder.encode_video(pixels),
                **encode_text(encoder, captions, "text."),
                **_encode_conditions(encoder, pixels, rates),
            }
        )
        long = [clip.long_caption for clip, _ in read if clip.long_caption is not None]
        if long:
            parts.append(encode_text(encoder, long, "long."))
        keys += [clip.key for clip, _ in read]
    kept = set(keys)
    return Encoded(
        tensors=_cat(parts),
        keys=tuple(keys),
        long_keys=tuple(clip.key for clip in clips if clip.key in kept and clip.long_caption is not None),
        refused=tuple(refused),
    )


def encode_text(encoder: Encoder, captions: list[str], prefix: str) -> dict[str, torch.Tensor]:
    """Text states, with `prefix` before their names."""
    return {prefix + name: states.contiguous() for name, states in encoder.encode_text(captions).items()}


def _encode_conditions(encoder: Encoder, pixels: torch.Tensor, rates: list[float | None]) -> dict[str, torch.Tensor]:
    """What a model reads of the clips themselves, beside the text states, if it does."""
    own: Any = getattr(encoder, "encode_conditions", None)
    return {f"text.{name}": value.contiguous() for name, value in own(pixels, rates).items()} if own else {}


def to_pixels(frames: np.ndarray) -> torch.Tensor:
    """Frames `(T, H, W, 3)` uint8 to `(3, T, H, W)` float32 in [-1, 1]."""
    return torch.tensor(frames).permute(3, 0, 1, 2).float().div_(127.5).sub_(1.0)


def _read(
    source: ClipSource, clips: Sequence[Clip], bucket: Bucket, refused: list[Refused]
) -> Iterator[tuple[Clip, np.ndarray]]:
    for clip in clips:
        try:
            frames = source.read(clip, num_frames=bucket.num_frames, height=bucket.height, width=bucket.width)
        except DataError as error:
            refused.append(Refused(name=clip.key, reason=str(error).removeprefix(f"{clip.key}: ")))
            continue
        yield clip, frames


def _cat(parts: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    tensors = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        rows = [part[name] for part in parts if name in part]
        shapes = {tuple(row.shape[1:]) for row in rows}
        if len(shapes) > 1:
            raise DataError(f"{name}: the encoder gave shapes {shapes}; it must pad all of them to one length")
        tensors[name] = torch.cat(rows).contiguous()
    return tensors
