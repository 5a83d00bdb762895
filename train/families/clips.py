"""Models that read one clip a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from .family import Text


def clip_by_clip(
    call: Callable[[torch.Tensor, torch.Tensor, Text], torch.Tensor],
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    text: Text,
) -> torch.Tensor:
    """`call` of each clip of a batch, as a batch of one, always as often as there are clips: what FSDP2 splits has to
    be called equally often everywhere."""
    rows = [slice(place, place + 1) for place in range(len(noisy))]
    return torch.cat([call(noisy[row], timesteps[row], {name: text[name][row] for name in text}) for row in rows])
