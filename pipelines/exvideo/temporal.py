"""ExVideo's temporal attention block: SVD's own, with trained positions and a 3D convolution before its attention.

Shape letters: B clips, T frames, C channels, H, W height and width of the block's feature map, N rows of the position
table, S tokens and D channels of the image's states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.transformers.transformer_temporal import (
    TransformerSpatioTemporalModel,
    TransformerTemporalModelOutput,
)
from torch import nn

from modelgrow.surgery.pingpong import ping_pong

if TYPE_CHECKING:
    from collections.abc import Callable


class ExVideoTransformerSpatioTemporalModel(TransformerSpatioTemporalModel):
    """Spatial attention, then attention over all T frames of each pixel, mixed as in SVD.

    Two things are new (arXiv 2406.14130, section 3.2):

    * `position_table.weight` (N, C), which `time_pos_embed` reads instead of sinusoids of the frames' numbers;
    * `temporal_conv` (weight (C, C, 3, 3, 3), bias (C)), a convolution over (T, H, W) with reflect padding. It stands
      after the positions and before the first temporal block, so what that block adds to has passed through it too.
      The spatial branch, with which the mixer blends the result, has not.

    A new one begins as ExVideo does: the table holds the sinusoids in `ping_pong`'s order, and the convolution is the
    identity. For the first `base_frames` frames it then computes SVD's own block.
    """

    def __init__(
        self,
        num_attention_heads: int,
        attention_head_dim: int,
        in_channels: int,
        num_layers: int,
        cross_attention_dim: int | None,
        num_position_frames: int,
        base_frames: int,
    ) -> None:
        super().__init__(
            num_attention_heads,
            attention_head_dim,
            in_channels=in_channels,
            num_layers=num_layers,
            cross_attention_dim=cross_attention_dim,
        )
        sinusoids = self.time_proj
        del self.time_proj
        self.position_table = nn.Embedding(num_position_frames, in_channels)
        self.temporal_conv = nn.Conv3d(
            in_channels, in_channels, kernel_size=3, padding=1, padding_mode="reflect", bias=True
        )
        with torch.no_grad():
            positions = torch.tensor(ping_pong(num_position_frames, base_frames), dtype=torch.int64)
            self.position_table.weight.copy_(sinusoids(positions))
            nn.init.dirac_(self.temporal_conv.weight)
            nn.init.zeros_(self.temporal_conv.get_parameter("bias"))

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        image_only_indicator: torch.Tensor,
        return_dict: bool = True,
    ) -> TransformerTemporalModelOutput | tuple[torch.Tensor]:
        """As in diffusers.

        Args:
            hidden_states: (B T, C, H, W), with T >= 2, T <= N, H >= 2 and W >= 2.
            encoder_hidden_states: (B T, S, D).
            image_only_indicator: (B, T); T is read from it.
            return_dict: Whether to return an object instead of a tuple.
        """
        batch, frames = image_only_indicator.shape
        height, width = hidden_states.shape[2:]
        context = _per_pixel(encoder_hidden_states, frames, height * width)
        positions = self._positions(batch, frames, hidden_states)
        mixed = self.proj_in(self.norm(hidden_states).permute(0, 2, 3, 1).flatten(1, 2))
        for layer, spatial in enumerate(self.transformer_blocks):
            mixed = self._run(spatial, mixed, None, encoder_hidden_states, None)
            over_time = self._run(self._temporal, layer, mixed, positions, context, (frames, height, width))
            mixed = self.time_mixer(x_spatial=mixed, x_temporal=over_time, image_only_indicator=image_only_indicator)
        mixed = self.proj_out(mixed).unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous()
        output = mixed + hidden_states
        return TransformerTemporalModelOutput(sample=output) if return_dict else (output,)

    def _positions(self, batch: int, frames: int, like: torch.Tensor) -> torch.Tensor:
        """(B T, 1, C), what is added to every pixel of a frame."""
        # Every clip's rows are looked up and projected, though they are equal: SVD does it so, and a product of
        # another size may differ in the last bit.
        frame_ids = torch.arange(frames, device=like.device).repeat(batch)
        rows: torch.Tensor = self.position_table(frame_ids)
        projected: torch.Tensor = self.time_pos_embed(rows.to(like.dtype))
        return projected[:, None, :]

    def _temporal(
        self,
        layer: int,
        spatial: torch.Tensor,
        positions: torch.Tensor,
        context: torch.Tensor,
        sizes: tuple[int, int, int],
    ) -> torch.Tensor:
        """(B T, H W, C) in, the same out."""
        states = spatial + positions
        if layer == 0:
            states = self._convolve(states, sizes)
        output: torch.Tensor = self.temporal_transformer_blocks[layer](
            states, num_frames=sizes[0], encoder_hidden_states=context
        )
        return output

    def _convolve(self, states: torch.Tensor, sizes: tuple[int, int, int]) -> torch.Tensor:
        volume = states.view(-1, *sizes, states.shape[-1]).permute(0, 4, 1, 2, 3)
        convolved: torch.Tensor = self.temporal_conv(volume)
        return convolved.permute(0, 2, 3, 4, 1).reshape(states.shape)

    def _run(self, part: Callable[..., torch.Tensor], *args: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            checkpointed: torch.Tensor = self._gradient_checkpointing_func(part, *args)
            return checkpointed
        return part(*args)


def _per_pixel(states: torch.Tensor, frames: int, pixels: int) -> torch.Tensor:
    """The first frame's states of each clip, for every pixel: (B T, S, D) -> (B H W, S, D)."""
    first: torch.Tensor = states.unflatten(0, (-1, frames))[:, 0]
    return first[:, None].expand(-1, pixels, -1, -1).flatten(0, 1)
