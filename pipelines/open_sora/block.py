"""What the blocks of Open-Sora 1.0 and 1.2 have in common: their layers, and how the prompt and the feed-forward enter.

Shape letters: B samples, T frames in patches, S patches of a frame, C width, L text tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import CrossAttention, SelfAttention
from .layers import Mlp, modulate, norm


class OpenSoraBlock(nn.Module):
    """The part of `STDiTBlock` and `STDiT3Block` that is alike. Which tokens attend to which is theirs to say.

    Arguments that `forward` has in both, which makes (B, T * S, C) of the same:
        hidden_states: The video's tokens, frame by frame.
        encoder_hidden_states: (B, L, C).
        encoder_attention_mask: (B, 1, 1, L) bool, True where a token counts.
        modulation: (B, T or 1, 6, C): shift, scale and gate of the attention, then of the feed-forward.
        frames: T.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, qk_norm: bool = False) -> None:
        super().__init__()
        self.norm1 = norm(width)
        self.attn = SelfAttention(width, heads, qk_norm)
        self.cross_attn = CrossAttention(width, heads)
        self.norm2 = norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), width)
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def _add_text_and_mlp(
        self, states: Tensor, text: Tensor, mask: Tensor | None, shift: Tensor, scale: Tensor, gate: Tensor
    ) -> Tensor:
        """(B, T, S, C) -> (B, T * S, C).

        Args:
            states: The video, after the attention within and among frames.
            text: (B, L, C).
            mask: (B, 1, 1, L) bool, True where a token counts.
            shift, scale, gate: Of the feed-forward, each (B, T or 1, 1, C).
        """
        # Neither normalized nor gated, unlike what is around it.
        flat = states.flatten(1, 2)
        flat = self.after_text(flat + self.cross_attn(flat, text, mask))
        states = flat.unflatten(1, states.shape[1:3])
        states = states + gate * self.mlp(modulate(self.norm2(states), shift, scale))
        return states.flatten(1, 2)

    def after_text(self, hidden_states: Tensor) -> Tensor:
        """For a subclass that has more to read right after the prompt: (B, T * S, C) to the same."""
        return hidden_states
