"""What the transformers of Open-Sora 1.0 and 1.2 share, with the reference's parameter names.

Reference: `opensora/models/layers/blocks.py`, Apache-2.0.

Shape letters: B samples, T frames in patches (or 1, where all frames are alike), S patches of a frame, C width,
L text tokens, D width of a text state; P pixels of a patch, in_channels and out_channels together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

from modelgrow.surgery import GenerateError

_FREQUENCIES = 256


def norm(width: int) -> nn.LayerNorm:
    """A norm that has no weights: the modulation scales and shifts instead."""
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def modulate(states: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return states * (1 + scale) + shift


def repeat_rows(values: Tensor, batch: int, what: str) -> Tensor:
    """Rows for a batch that holds both halves of guidance, when they were given for one (the reference's rule).

    Raises:
        GenerateError: The batch is no multiple of the rows.
    """
    if batch % len(values):
        raise GenerateError(f"{what} has {len(values)} rows for a batch of {batch}; give one for each sample")
    return values.repeat(batch // len(values), *(1 for _ in values.shape[1:]))


class PatchEmbed3D(nn.Module):
    """Patches of (time, height, width) become tokens; sizes that do not come out even are padded with zeros."""

    def __init__(self, in_channels: int, width: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(in_channels, width, kernel_size=patch, stride=patch)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, in_channels, frames, height, width) -> (B, T, S, C)."""
        sizes = zip(reversed(hidden_states.shape[2:]), reversed(self.patch), strict=True)
        padded = F.pad(hidden_states, [side for size, patch in sizes for side in (0, -size % patch)])
        tokens: Tensor = self.proj(padded)
        return tokens.flatten(3).permute(0, 2, 3, 1)


def unpatchify(tokens: Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int], size: torch.Size) -> Tensor:
    """(B, T * S, P) -> (B, out_channels, *size), without what `PatchEmbed3D` padded. A patch has its channels last."""
    patches = tokens.unflatten(2, (*patch, -1)).unflatten(1, grid)
    video: Tensor = patches.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
    return video[:, :, : size[0], : size[1], : size[2]]


class ScalarEmbedder(nn.Module):
    """A number, such as the timestep, as a vector. Its sines are float32 in every dtype; the reference rounds it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """(B,) -> (B, C) in `dtype`."""
        waves = get_timestep_embedding(values.float(), _FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0)
        embedded: Tensor = self.mlp(waves.to(dtype))
        return embedded


class Mlp(nn.Module):
    """Two matrices with a GELU, as its tanh approximation, between them."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, states: Tensor) -> Tensor:
        projected: Tensor = self.fc2(self.act(self.fc1(states)))
        return projected


class CaptionEmbedder(nn.Module):
    """Text states in the model's width, and the null caption, which stands for an empty prompt."""

    y_embedding: Tensor

    def __init__(self, text_width: int, width: int, tokens: int) -> None:
        super().__init__()
        # A buffer: it comes from the base (PixArt) and is not trained. It is a text state, so before `y_proj`.
        self.register_buffer("y_embedding", torch.randn(tokens, text_width) / text_width**0.5)
        self.y_proj = Mlp(text_width, width, width)

    def forward(self, states: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, C)."""
        projected: Tensor = self.y_proj(states)
        return projected


def text_mask(mask: Tensor | None, batch: int) -> Tensor | None:
    """(B, L), or (B / 2, L) under guidance, 1 where a token counts -> (B, 1, 1, L) bool.

    The reference reads the null caption through the prompt's mask too, so its length is the prompt's.
    """
    if mask is None:
        return None
    return repeat_rows(mask.flatten(1), batch, "encoder_attention_mask")[:, None, None, :] != 0


class FinalLayer(nn.Module):
    """Norm, modulation by the timestep alone, projection to patches."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = norm(width)
        self.linear = nn.Linear(width, out)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)

    def forward(self, states: Tensor, now: Tensor, clean: Tensor | None, frame_mask: Tensor | None) -> Tensor:
        """(B, T * S, C) -> (B, T * S, P). `now`, `clean`: (B, C), embeddings of the timestep and of 0."""
        modulated = self._modulate(states, now)
        if frame_mask is not None and clean is not None:
            # The reference modulates given frames twice, first by the timestep, and its weights were trained so.
            twice = self._modulate(modulated, clean)
            kept = frame_mask.repeat_interleave(states.shape[1] // frame_mask.shape[1], dim=1)
            modulated = torch.where(kept[:, :, None], modulated, twice)
        patches: Tensor = self.linear(modulated)
        return patches

    def _modulate(self, states: Tensor, embedded: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table + embedded[:, None]).chunk(2, dim=1)
        return modulate(self.norm_final(states), shift, scale)
