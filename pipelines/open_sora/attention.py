"""Self-attention and cross-attention of Open-Sora 1.0 and 1.2, with the reference's parameter names.

Queries, keys and values come from one matrix (`qkv`), keys and values of the text from another (`kv_linear`).

Shape letters: N sequences, B samples, S tokens, L text tokens, C width, D width of a head.
"""

from __future__ import annotations

from typing import Any

from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.normalization import RMSNorm
from torch import Tensor, nn

_EPS = 1e-6


class OpenSoraAttnProcessor:
    """Attention by diffusers' dispatch, so that `set_attention_backend` reaches it."""

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(
        self,
        attn: SelfAttention | CrossAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        query, key, value = attn.project(hidden_states, encoder_hidden_states)
        query, key = attn.q_norm(query), attn.k_norm(key)
        if rotary_emb is not None:
            query, key = (apply_rotary_emb(states, rotary_emb, sequence_dim=1) for states in (query, key))
        output: Tensor = dispatch_attention_fn(
            query, key, value, attn_mask=attention_mask, backend=self._attention_backend
        )
        projected: Tensor = attn.proj(output.flatten(2, 3).type_as(query))
        return projected


class _Attention(nn.Module, AttentionModuleMixin):
    """What diffusers asks of an attention."""

    _default_processor_cls = OpenSoraAttnProcessor
    _available_processors = (OpenSoraAttnProcessor,)
    _supports_qkv_fusion = False
    processor: Any


class SelfAttention(_Attention):
    """Attention among the tokens of a sequence: those of a frame, or those of a place in all frames."""

    is_cross_attention = False

    def __init__(self, width: int, heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = RMSNorm(width // heads, eps=_EPS) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(width // heads, eps=_EPS) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)
        self.processor = OpenSoraAttnProcessor()

    def project(self, hidden_states: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(N, S, C) -> queries, keys and values, each (N, S, heads, D)."""
        query, key, value = self.qkv(hidden_states).unflatten(2, (3, self.heads, -1)).unbind(2)
        return query, key, value

    def forward(self, hidden_states: Tensor, rotary_emb: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(N, S, C) to the same. `rotary_emb`: cosines and sines, each (S, D) float32."""
        output: Tensor = self.processor(self, hidden_states, rotary_emb=rotary_emb)
        return output


class CrossAttention(_Attention):
    """Attention of the video's tokens to those of the prompt."""

    is_cross_attention = True

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(width, width)
        self.kv_linear = nn.Linear(width, 2 * width)
        self.q_norm, self.k_norm = nn.Identity(), nn.Identity()
        self.proj = nn.Linear(width, width)
        self.processor = OpenSoraAttnProcessor()

    def project(self, hidden_states: Tensor, encoder_hidden_states: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, C) -> queries (B, S, heads, D); (B, L, C) -> keys and values, each (B, L, heads, D)."""
        query = self.q_linear(hidden_states).unflatten(2, (self.heads, -1))
        key, value = self.kv_linear(encoder_hidden_states).unflatten(2, (2, self.heads, -1)).unbind(2)
        return query, key, value

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """(B, S, C) and (B, L, C) -> (B, S, C). `mask`: (B, 1, 1, L) bool, True where a token counts; None is all.

        The reference packs the prompts of a batch into one sequence and lets each sample see its own part; a mask of
        keys gives the same.
        """
        output: Tensor = self.processor(self, hidden_states, encoder_hidden_states, mask)
        return output
