"""The temporal part of Open-Sora 1.2's VAE: causal 3D convolutions after MAGVIT-v2 (Yu et al., arXiv 2310.05737).

It works on the latents of a 2D VAE and makes a quarter of the frames of them. Parameters have the reference's
names (`opensora/models/vae/vae_temporal.py`).

Shape letters: B samples, C channels, T frames, F latent frames, H, W height and width of the 2D latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class CausalConv3d(nn.Module):
    """A convolution that sees this frame and earlier ones: zeros stand before the first and around each."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, time_stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        side = kernel // 2
        # With a stride, the last of the strided positions must fall on the last frame.
        self.padding = (side, side, side, side, kernel - time_stride, 0)
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride=(time_stride, 1, 1), bias=bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> (B, C', ceil(T / time_stride), H, W)."""
        convolved: torch.Tensor = self.conv(F.pad(states, self.padding))
        return convolved


class ResBlock(nn.Module):
    """Twice norm, SiLU, convolution, beside a shortcut. The norms are over all frames of a chunk, so not causal."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs)
        self.conv1 = CausalConv3d(inputs, outputs, 3, bias=False)
        self.norm2 = nn.GroupNorm(groups, outputs)
        self.conv2 = CausalConv3d(outputs, outputs, 3, bias=False)
        self.conv3 = CausalConv3d(inputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        residual = states if self.conv3 is None else self.conv3(states)
        states = self.conv1(F.silu(self.norm1(states)))
        states = self.conv2(F.silu(self.norm2(states)))
        return states + residual


def _res_blocks(inputs: int, outputs: int, count: int, groups: int) -> nn.ModuleList:
    return nn.ModuleList(ResBlock(inputs if number == 0 else outputs, outputs, groups) for number in range(count))


class Levels(NamedTuple):
    """What encoder and decoder are made of."""

    filters: int
    num_res_blocks: int
    """On every level."""
    multipliers: Sequence[int]
    """Of `filters`, level by level."""
    downsample: Sequence[bool]
    """Whether the encoder halves the frames behind a level."""
    groups: int
    """Of every norm."""

    @property
    def widths(self) -> list[int]:
        return [self.filters * multiplier for multiplier in self.multipliers]


class TemporalEncoder(nn.Module):
    """2D latents -> moments of the temporal posterior."""

    def __init__(self, channels: int, moments: int, levels: Levels) -> None:
        super().__init__()
        widths, groups = levels.widths, levels.groups
        self.conv_in = CausalConv3d(channels, levels.filters, 3, bias=False)
        self.block_res_blocks = nn.ModuleList(
            _res_blocks(before, after, levels.num_res_blocks, groups)
            for before, after in zip([levels.filters, *widths], widths, strict=False)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, width, 3, time_stride=2) if halve else nn.Identity()
            for width, halve in zip(widths, levels.downsample, strict=False)
        )
        self.res_blocks = _res_blocks(widths[-1], widths[-1], levels.num_res_blocks, groups)
        self.norm1 = nn.GroupNorm(groups, widths[-1])
        self.conv2 = CausalConv3d(widths[-1], moments, 1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> (B, moments, F, H, W)."""
        states = self.conv_in(states)
        for number, blocks in enumerate(self.block_res_blocks):
            states = _run(blocks, states)
            if number < len(self.conv_blocks):
                states = self.conv_blocks[number](states)
        states = F.silu(self.norm1(_run(self.res_blocks, states)))
        moments: torch.Tensor = self.conv2(states)
        return moments


class TemporalDecoder(nn.Module):
    """Latents -> 2D latents of four times as many frames."""

    def __init__(self, channels: int, latent: int, levels: Levels) -> None:
        super().__init__()
        widths, groups = levels.widths, levels.groups
        self.conv1 = CausalConv3d(latent, widths[-1], 3)
        self.res_blocks = _res_blocks(widths[-1], widths[-1], levels.num_res_blocks, groups)
        self.block_res_blocks = nn.ModuleList(
            _res_blocks(before, after, levels.num_res_blocks, groups)
            for before, after in zip([*widths[1:], widths[-1]], widths, strict=True)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, 2 * width, 3) if double else nn.Identity()
            for width, double in zip(widths[1:], levels.downsample, strict=False)
        )
        self.norm1 = nn.GroupNorm(groups, widths[0])
        self.conv_out = CausalConv3d(widths[0], channels, 3)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(B, latent, F, H, W) -> (B, C, 4F, H, W)."""
        states = _run(self.res_blocks, self.conv1(states))
        for number in reversed(range(len(self.block_res_blocks))):
            states = _run(self.block_res_blocks[number], states)
            if number:
                states = _to_time(self.conv_blocks[number - 1](states), states.shape[1])
        decoded: torch.Tensor = self.conv_out(F.silu(self.norm1(states)))
        return decoded


def _run(blocks: nn.Module, states: torch.Tensor) -> torch.Tensor:
    for block in blocks.children():
        states = block(states)
    return states


def _to_time(states: torch.Tensor, channels: int) -> torch.Tensor:
    """(B, channels * n, T, H, W) -> (B, channels, T * n, H, W); a channel's n frames lie side by side."""
    split: torch.Tensor = states.unflatten(1, (channels, -1))
    return split.movedim(2, 3).flatten(2, 3)


class TemporalVAE(nn.Module):
    """Encoder and decoder with the convolutions that stand between them and the posterior.

    Arguments have the reference's names. Their defaults are those of the published weights
    (`VAE_Temporal_SD`, 309.7 M parameters).
    """

    def __init__(
        self,
        in_out_channels: int = 4,
        latent_embed_dim: int = 4,
        embed_dim: int = 4,
        filters: int = 128,
        num_res_blocks: int = 4,
        channel_multipliers: Sequence[int] = (1, 2, 2, 4),
        temporal_downsample: Sequence[bool] = (False, True, True),
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        levels = Levels(filters, num_res_blocks, channel_multipliers, temporal_downsample, num_groups)
        self.time_factor = 2 ** sum(temporal_downsample)
        self.encoder = TemporalEncoder(in_out_channels, 2 * latent_embed_dim, levels)
        self.quant_conv = CausalConv3d(2 * latent_embed_dim, 2 * embed_dim, 1)
        self.post_quant_conv = CausalConv3d(embed_dim, latent_embed_dim, 1)
        self.decoder = TemporalDecoder(in_out_channels, latent_embed_dim, levels)

    def encode(self, states: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> mean and log variance of the posterior, (B, 2C, ceil(T / time_factor), H, W)."""
        missing = -states.shape[2] % self.time_factor
        moments: torch.Tensor = self.quant_conv(self.encoder(F.pad(states, (0, 0, 0, 0, missing, 0))))
        return moments

    def decode(self, latents: torch.Tensor, num_frames: int) -> torch.Tensor:
        """(B, C, F, H, W) -> (B, C, num_frames, H, W), without the frames that `encode` put in front."""
        decoded: torch.Tensor = self.decoder(self.post_quant_conv(latents))
        return decoded[:, :, -num_frames % self.time_factor :]
