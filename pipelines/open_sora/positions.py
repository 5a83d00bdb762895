"""Where a token stands: sines for height and width, rotated queries and keys for time. All of it in float32.

The reference casts its tables to the model's dtype. In bfloat16 its spatial table is then off by up to 0.058, and its
rotation by 0.44 rad at frame 120; here they keep their values, so outputs in 16 bits differ from the reference's there.

Shape letters: T frames, H, W height and width in patches, C width of the model, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_BASE = 10000.0


class KeepsFloat32(nn.Module):
    """A module whose tables stay float32 when it is cast to another dtype."""

    _float32_tables: tuple[str, ...] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = {name: getattr(self, name).data for name in self._float32_tables}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, exact in before.items():
            table = getattr(self, name)
            if table.dtype != torch.float32 and exact.dtype == torch.float32:
                table.data = exact.to(table.device)
        return self


def sines(positions: Tensor, width: int) -> Tensor:
    """[sin, cos] of the positions at falling frequencies: (n,) -> (n, width), in the positions' dtype."""
    steps = torch.arange(0, width, 2, device=positions.device, dtype=positions.dtype)
    angles = torch.outer(positions, 1.0 / _BASE ** (steps / width))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def plane(rows: Tensor, columns: Tensor, width: int) -> Tensor:
    """(H,) and (W,) positions -> (1, H * W, width). The column's sines come first, as in the reference."""
    across, down = (sines(positions, width // 2) for positions in (columns, rows))
    grid = torch.cat(
        [across[None].expand(len(rows), -1, -1), down[:, None].expand(-1, len(columns), -1)],
        dim=2,
    )
    return grid.flatten(0, 1)[None]


def scaled_plane(rows: int, columns: int, width: int, scale: Tensor) -> Tensor:
    """STDiT3's table: resolutions and shapes share one range of positions (`PositionEmbedding2D`).

    Args:
        rows, columns: H and W.
        width: C.
        scale: 0-dim float32: the square root of the clip's area in pixels over that of the training resolution.

    Returns:
        (1, H * W, C) float32.
    """
    side = round((rows * columns) ** 0.5)
    down, across = (
        torch.arange(count, device=scale.device, dtype=torch.float32) / scale * (side / count)
        for count in (rows, columns)
    )
    return plane(down, across, width)


class RotaryTime(KeepsFloat32):
    """Frequencies that turn pairs of neighbouring channels of queries and keys with the frame (arXiv 2104.09864).

    Frames count from 0, whatever the frame rate and the length. The frequencies stand in the checkpoint
    (`rope.freqs`), but are no weights: they are not trained.
    """

    _float32_tables = ("freqs",)

    def __init__(self, width: int) -> None:
        super().__init__()
        freqs = 1.0 / _BASE ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
        self.freqs = nn.Parameter(freqs, requires_grad=False)

    def forward(self, frames: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (T, D) float32, every frequency twice."""
        freqs = self.freqs.detach()
        angles = torch.outer(torch.arange(frames, device=freqs.device, dtype=freqs.dtype), freqs)
        angles = angles.repeat_interleave(2, dim=1)
        return angles.cos(), angles.sin()
