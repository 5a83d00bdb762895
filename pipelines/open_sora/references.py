"""Pictures and clips that a new clip begins with, ends with, or is an edit of.

Shape letters: B clips, C channels, T frames, F latent frames, H, W height and width in pixels, h, w of latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modelgrow.surgery import GenerateError

from .inputs import one_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .inputs import Size

Pixels = Any
"""A PIL picture, a list of them, an array or a tensor; arrays (T, H, W, 3), tensors (T, 3, H, W), in [0, 1]."""


@dataclass(kw_only=True, eq=False)
class References:
    """What is given, for each clip of a batch."""

    latents: list[list[torch.Tensor]]
    """For each clip its references, (C, F', h, w)."""
    strategies: list[str]
    """For each clip, see `masks.parse_mask_strategy`."""

    @classmethod
    def none(cls, count: int) -> References:
        """For `count` clips."""
        return cls(latents=[[] for _ in range(count)], strategies=[""] * count)

    def __bool__(self) -> bool:
        return any(self.strategies)

    def repeated(self, times: int) -> References:
        """Of each clip `times`, one after another."""
        return References(
            latents=[list(own) for own in self.latents for _ in range(times)],
            strategies=[strategy for strategy in self.strategies for _ in range(times)],
        )

    def add(self, encoded: Sequence[torch.Tensor], entry: str) -> None:
        """One more reference for every clip, and where it goes.

        Args:
            encoded: One (C, F', h, w) for each.
            entry: As in a mask strategy, "{}" for the reference's number.
        """
        for row, own in enumerate(self.latents):
            own.append(encoded[row])
            text = entry.format(len(own) - 1)
            self.strategies[row] = f"{self.strategies[row]};{text}" if self.strategies[row] else text


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """A picture or clip, or one for each prompt."""

    name: str
    pixels: Pixels
    entry: str
    """Where it goes, see `References.add`."""
    is_clip: bool = False


def entries(
    image: Pixels, last_image: Pixels, video: Pixels, num_latents: int, edit_ratio: float, length: int
) -> list[Given]:
    """What was given, in this order, and where it goes in a clip of `num_latents` latent frames.

    A video is edited as a whole if there is an edit ratio, else its last `length` latent frames begin the clip.

    Raises:
        GenerateError: The edit ratio is none.
    """
    if not 0 <= edit_ratio <= 1:
        raise GenerateError(f"edit_ratio is {edit_ratio}; it must lie between 0, nothing changes, and 1, everything")
    video_entry = f"0,{{}},0,0,{num_latents},{edit_ratio}" if edit_ratio else f"0,{{}},-{length},0,{length},0.0"
    found = [
        Given(name="image", pixels=image, entry=f"0,{{}},0,0,1,{edit_ratio}"),
        Given(name="last_image", pixels=last_image, entry=f"0,{{}},0,-1,1,{edit_ratio}"),
        Given(name="video", pixels=video, entry=video_entry, is_clip=True),
    ]
    return [given for given in found if given.pixels is not None]


def batch_of(given: Given, count: int) -> list[Pixels]:
    """One for each of `count` prompts; one for all is repeated. Raises `GenerateError` at another number of them."""
    pixels = given.pixels
    if isinstance(pixels, np.ndarray | torch.Tensor):
        several = pixels.ndim > (4 if given.is_clip else 3)
    else:
        several = isinstance(pixels, list | tuple) and not (given.is_clip and _is_clip(pixels))
    found = list(pixels) if several else [pixels]
    if len(found) == 1:
        found = found * count
    if len(found) != count:
        raise GenerateError(f"{given.name}: {len(found)} for {count} prompts; give one, or one for each")
    return found


def _is_clip(given: Sequence[Any]) -> bool:
    return not isinstance(given[0], list | tuple) and getattr(given[0], "ndim", 3) <= 3


def to_pixels(given: Pixels, processor: Any, height: int, width: int) -> torch.Tensor:
    """One picture or clip -> (1, 3, T, H, W) in [-1, 1], float32; PIL pictures are cropped, others stretched."""
    frames: torch.Tensor = processor.preprocess(given, height=height, width=width, resize_mode="crop")
    return frames.float().transpose(0, 1)[None]


def collect(
    pipeline: Any,
    given: Sequence[Given],
    mask_strategy: str | Sequence[str | None] | None,
    prompts: int,
    size: Size,
) -> References:
    """What was given, encoded, for each prompt.

    Args:
        pipeline: Encodes it.
        given: From `entries`.
        mask_strategy: In place of what `given` says about where it goes; one for all, or one for each prompt.
        prompts: How many.
        size: Of the clip.
    """
    found = References.none(prompts)
    for one in given:
        each = [
            to_pixels(pixels, pipeline.video_processor, size.height, size.width) for pixels in batch_of(one, prompts)
        ]
        found.add([pipeline.encode_video(pixels)[0] for pixels in each], one.entry)
    if mask_strategy is not None:
        found.strategies = one_each(mask_strategy, prompts, "mask strategies")
    return found
