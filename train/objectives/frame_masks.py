"""Which latent frames of a sample are given and not denoised, so that a model learns to go on from pictures and clips.

The kinds and their shares are those of Open-Sora 1.2's first stage (`configs/opensora-v1-2/train/stage1.py`,
`MaskGenerator` of `opensora/utils/train_utils.py`).

Shape letters: B samples, F latent frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

SHARES: Mapping[str, float] = {
    "random": 0.05,
    "interpolate": 0.005,
    "quarter_random": 0.005,
    "quarter_head": 0.005,
    "quarter_tail": 0.005,
    "quarter_head_tail": 0.005,
    "image_random": 0.025,
    "image_head": 0.05,
    "image_tail": 0.025,
    "image_head_tail": 0.025,
}
"""Of the samples; no frame of the others is given."""
TOTAL = sum(SHARES.values())
GIVEN = -1.0
"""The level of a frame that is given, where levels are of frames."""


def draw_frame_mask(frames: int, share: float, generator: torch.Generator) -> torch.Tensor:
    """(F,) bool, True where a frame is denoised; at least one is.

    Args:
        frames: F.
        share: Of the samples in which some frames are given, the kinds as in `SHARES`.
        generator: On the CPU.
    """
    kind = _kind(share, generator)
    mask = torch.ones(frames, dtype=torch.bool)
    if kind is None or frames < 2:
        return mask
    if kind == "random":
        given = 0.1 + 0.8 * torch.rand(1, generator=generator).item()
        mask = torch.rand(frames, generator=generator) > given
    elif kind == "interpolate":
        mask[_whole(0, 1, generator) :: 2] = False
    else:
        length, places = kind.split("_", 1)
        # Of 2 and 3 frames the reference takes a quarter to be none, and fails.
        size = 1 if length == "image" else _whole(1, max(1, frames // 4), generator)
        if places == "random":
            start = _whole(0, frames - size, generator)
            mask[start : start + size] = False
        if "head" in places:
            mask[:size] = False
        if "tail" in places:
            mask[-size:] = False
    if not mask.any():
        mask[-1] = True
    return mask


def of_frames(values: torch.Tensor) -> torch.Tensor:
    """A number for each frame, (B, F), in the shape that fits to latents: (B, 1, F, 1, 1)."""
    return values[:, None, :, None, None]


def weights_of(levels: torch.Tensor) -> torch.Tensor:
    """What the squared error of each frame counts: levels (B, F), negative where a frame is given -> (B, 1, F, 1, 1).

    Each sample's mean is that over its denoised frames.
    """
    denoised = of_frames((levels >= 0).float())
    return denoised / denoised.mean(dim=2, keepdim=True)


def _kind(share: float, generator: torch.Generator) -> str | None:
    drawn = torch.rand(1, generator=generator).item()
    for kind, part in SHARES.items():
        drawn -= part / TOTAL * share
        if drawn < 0:
            return kind
    return None


def _whole(least: int, most: int, generator: torch.Generator) -> int:
    """Both ends included."""
    return int(torch.randint(least, most + 1, (1,), generator=generator).item())
