"""From clips to what a model trains on: latents and text states, a shard at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from modelgrow.surgery import DataError

from .clip import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from .buckets import Bucket
    from .clip import Clip, ClipSource


Size = tuple[int, int]
"""Height and width in pixels."""
SIZED = ("latents", "pixels")
"""How the names end of what depends on the clips' size."""
PIXELS_AT_ONCE = 1 << 23
"""Of all frames of the clips that are encoded together: 17 frames of 704 x 704, or one clip that is larger."""


class Encoder(Protocol):
    """A pipeline's VAE and text encoders. What it gives is kept as it is, in its dtype.

    It may have `encode_conditions(pixels, frame_rates, controls)` besides: what the model reads of the clips
    themselves and of their control clips, as text states are, of which only those whose names end as in `SIZED` depend
    on the clips' size; `control_sizes`, by name the height and width that control clips are read at, where that is
    not the clips' own; and `encode_captions(captions, pixels)`, which reads captions with their clips, in the place of
    `encode_text`.
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
    """Encode clips at a bucket's size, `batch_size` of them together, or fewer if they are large. One that can't be
    decoded is refused, and the others go on.

    Raises:
        DataError: The encoder's text states have changing shapes.
    """
    parts: list[dict[str, torch.Tensor]] = []
    keys: list[str] = []
    refused: list[Refused] = []
    sizes: Mapping[str, Size | None] = getattr(encoder, "control_sizes", {})
    together = max(1, min(batch_size, PIXELS_AT_ONCE // (bucket.num_frames * bucket.height * bucket.width)))
    for start in range(0, len(clips), together):
        read = list(_read(source, clips[start : start + together], bucket, sizes, refused))
        if read:
            parts += _encode(read, encoder)
            keys += [item.clip.key for item in read]
    kept = set(keys)
    return Encoded(
        tensors=_cat(parts),
        keys=tuple(keys),
        long_keys=tuple(clip.key for clip in clips if clip.key in kept and clip.long_caption is not None),
        refused=tuple(refused),
    )


def _encode(read: Sequence[_Item], encoder: Encoder) -> list[dict[str, torch.Tensor]]:
    """Some clips together: what there is of all of them; and, if any has one, of their long captions."""
    pixels = torch.stack([to_pixels(item.frames) for item in read])
    controls = {name: torch.stack([to_pixels(item.controls[name]) for item in read]) for name in read[0].clip.controls}
    every = {
        "latents": encoder.encode_video(pixels),
        **_encode_captions(encoder, [item.clip.caption for item in read], pixels, "text."),
        **_encode_conditions(encoder, pixels, [item.clip.fps for item in read], controls),
    }
    long = {place: text for place, item in enumerate(read) if (text := item.clip.long_caption) is not None}
    if not long:
        return [every]
    return [every, _encode_captions(encoder, list(long.values()), pixels[list(long)], "long.")]


def encode_text(encoder: Encoder, captions: list[str], prefix: str) -> dict[str, torch.Tensor]:
    """Text states, with `prefix` before their names."""
    return {prefix + name: states.contiguous() for name, states in encoder.encode_text(captions).items()}


def _encode_captions(
    encoder: Encoder, captions: list[str], pixels: torch.Tensor, prefix: str
) -> dict[str, torch.Tensor]:
    """Text states of captions, read with their clips by an encoder that does so."""
    own: Any = getattr(encoder, "encode_captions", None)
    if own is None:
        return encode_text(encoder, captions, prefix)
    return {prefix + name: states.contiguous() for name, states in own(captions, pixels).items()}


def _encode_conditions(
    encoder: Encoder, pixels: torch.Tensor, rates: list[float | None], controls: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What a model reads of the clips themselves, beside the text states, if it does."""
    own: Any = getattr(encoder, "encode_conditions", None)
    return {f"text.{name}": value.contiguous() for name, value in own(pixels, rates, controls).items()} if own else {}


def to_pixels(frames: np.ndarray) -> torch.Tensor:
    """Frames `(T, H, W, 3)` uint8 to `(3, T, H, W)` float32 in [-1, 1]."""
    return torch.tensor(frames).permute(3, 0, 1, 2).float().div_(127.5).sub_(1.0)


@dataclass(frozen=True, kw_only=True)
class _Item:
    """A clip, and pixels `(T, H, W, 3)` uint8 of it and of its control clips."""

    clip: Clip
    frames: np.ndarray
    controls: Mapping[str, np.ndarray]


def _read(
    source: ClipSource,
    clips: Sequence[Clip],
    bucket: Bucket,
    sizes: Mapping[str, Size | None],
    refused: list[Refused],
) -> Iterator[_Item]:
    for clip in clips:
        try:
            frames = source.read(clip, num_frames=bucket.num_frames, height=bucket.height, width=bucket.width)
            controls = read_controls(source, clip, bucket, sizes)
        except DataError as error:
            refused.append(Refused(name=clip.key, reason=str(error).removeprefix(f"{clip.key}: ")))
            continue
        yield _Item(clip=clip, frames=frames, controls=controls)


def read_controls(
    source: ClipSource, clip: Clip, bucket: Bucket, sizes: Mapping[str, Size | None]
) -> dict[str, np.ndarray]:
    """A clip's control clips by name, (T, H, W, 3) uint8, those in `sizes` at a size of their own.

    Raises:
        DataError: One can't be decoded.
    """
    controls = {}
    for name in clip.controls:
        height, width = sizes.get(name) or (bucket.height, bucket.width)
        controls[name] = source.read_control(clip, name, num_frames=bucket.num_frames, height=height, width=width)
    return controls


def _cat(parts: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    tensors = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        rows = [part[name] for part in parts if name in part]
        shapes = {tuple(row.shape[1:]) for row in rows}
        if len(shapes) > 1:
            raise DataError(f"{name}: the encoder gave shapes {shapes}; it must pad all of them to one length")
        tensors[name] = torch.cat(rows).contiguous()
    return tensors
