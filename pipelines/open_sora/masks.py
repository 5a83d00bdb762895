"""Which latent frames are given and which are made: frames of pictures and clips set into the latents of a new clip.

Shape letters: B clips, C channels, F latent frames, h, w height and width of the latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from modelgrow.surgery import GenerateError

if TYPE_CHECKING:
    from collections.abc import Sequence

ALIGN = 5
"""Latent frames that the VAE codes together: what is set in begins at a multiple of it."""


class MaskEntry(NamedTuple):
    """One insertion, in the order of the reference's text form, "0,0,0,0,1,0.0"."""

    loop: int = 0
    reference: int = 0
    """Number of the picture or clip."""
    reference_start: int = 0
    """In latent frames; negative from the end, here and in `target_start`."""
    target_start: int = 0
    length: int = 1
    """In latent frames."""
    edit_ratio: float = 0.0
    """0: kept as given; 1: made anew; between: the part of the noise levels, from the lowest, at which it changes."""


def parse_mask_strategy(mask_strategy: str | None) -> list[MaskEntry]:
    """ "0;0,1,0,-1,1" -> two insertions. What is left out at an entry's end has `MaskEntry`'s defaults.

    Raises:
        GenerateError: An entry has more than six numbers, or something that is no number.
    """
    if not mask_strategy:
        return []
    entries = []
    for text in mask_strategy.split(";"):
        words = text.split(",")
        try:
            entry = MaskEntry(*[int(word) for word in words[:5]], *[float(word) for word in words[5:]])
        except (ValueError, TypeError) as error:
            raise GenerateError(
                f"mask strategy {mask_strategy!r}: {text!r} must be one to six numbers with commas between them: loop, "
                "reference, its first frame, where to set it, how many frames, edit ratio"
            ) from error
        entries.append(entry)
    return entries


def find_nearest_point(value: int, point: int, max_value: int) -> int:
    """The multiple of `point` nearest to `value`, below `max_value` with a whole `point` behind it."""
    nearest, rest = divmod(value, point)
    if rest > point / 2 and nearest < max_value // point - 1:
        nearest += 1
    return nearest * point


def apply_mask_strategy(
    latents: torch.Tensor,
    references: Sequence[Sequence[torch.Tensor]],
    strategies: Sequence[str | None],
    loop: int,
    align: int | None = ALIGN,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Set references into noise.

    Args:
        latents: Noise, (B, C, F, h, w).
        references: For each clip its pictures and clips, each (C, F', h, w).
        strategies: For each clip, see `parse_mask_strategy`; entries of other loops are left out.
        loop: Counted from 0.
        align: Begin at multiples of it, as the VAE's chunks do; None is without.

    Returns:
        The latents, and what part is made anew of each latent frame, (B, F), float32: 1 all of it, 0 none.

    Raises:
        GenerateError: A strategy names a reference that is not there, or frames outside of it or of the clip.
    """
    latents = latents.clone()
    ratios = torch.ones(latents.shape[0], latents.shape[2], device=latents.device)
    for row, (own, strategy) in enumerate(zip(references, strategies, strict=True)):
        for entry in parse_mask_strategy(strategy):
            if entry.loop != loop:
                continue
            if not -len(own) <= entry.reference < len(own):
                raise GenerateError(
                    f"mask strategy {strategy!r} names reference {entry.reference}; clip {row} has {len(own)}"
                )
            reference = own[entry.reference]
            source = _place(entry.reference_start, reference.shape[1], align, f"reference of {strategy!r}")
            target = _place(entry.target_start, latents.shape[2], align, f"target of {strategy!r}")
            length = min(entry.length, latents.shape[2] - target, reference.shape[1] - source)
            latents[row, :, target : target + length] = reference[:, source : source + length].to(latents)
            ratios[row, target : target + length] = entry.edit_ratio
    return latents, ratios


def _place(start: int, frames: int, align: int | None, what: str) -> int:
    begin = start + frames if start < 0 else start
    if not 0 <= begin < frames:
        raise GenerateError(f"{what}: begins at {start}, there are {frames} latent frames")
    return begin if align is None else find_nearest_point(begin, align, frames)
