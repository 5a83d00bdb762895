"""The slot: in every chosen block a cross-attention to a language model's states, silent until it is trained.

ModelGrow (arXiv 2412.18966, its pipeline figure) adds "another cross-attention block, aiming to learn the condition
of LLM text embedding", and the projector is Open-Sora's CaptionEmbedder: an MLP of two layers and a learned null
embedding. A zero output projection, weight and bias, makes the whole the base's function at the start.

Shape letters: B samples, N rows of a block's batch (B, or B times frames), S video tokens, C width of a block,
L tokens of the language model, D width of its states, W width of the slots (heads times head_dim).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry, dispatch_attention_fn
from torch import Tensor, nn

from modelgrow.surgery import CheckpointError
from modelgrow.surgery.slot import MODULE, PROJECTOR

from .blocks import with_slot
from .context import SlotContext

EPS = 1e-6


class SlotProjector(nn.Module):
    """(B, L, D) states to (B, L, W), with a learned state for a sample that has none."""

    def __init__(self, llm_dim: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(llm_dim, eps=EPS)
        self.linear_1 = nn.Linear(llm_dim, width)
        self.act = nn.GELU(approximate="tanh")
        self.linear_2 = nn.Linear(width, width)
        self.null = nn.Parameter(torch.randn(llm_dim) / llm_dim**0.5)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Args: states (B, L, D); mask (B, L) bool. Returns: (B, L, W), and (B, 1, 1, L) bool or None."""
        if mask is not None:
            has_none = ~mask.any(dim=1, keepdim=True)
            # Some language models leave NaN at padding, and NaN times a weight of zero is still NaN.
            states = states.masked_fill(~mask[..., None], 0.0)
            states = torch.where(has_none[..., None], self.null.to(states.dtype), states)
            mask = (mask | has_none)[:, None, None, :]
        return self.linear_2(self.act(self.linear_1(self.norm(states)))), mask


_TAKE_MASKS = frozenset(
    ("native", "_native_cudnn", "_native_efficient", "_native_math", "_native_npu", "flex", "xformers")
)
"""Attention backends that can leave padding out. Flash and sage attention refuse a mask, whatever is in it."""


class SlotAttnProcessor:
    """Attention by diffusers' dispatch, so that `set_attention_backend` reaches it.

    Where there is a mask and the chosen backend takes none, the slot's few keys are read by torch's own instead.
    """

    _attention_backend: Any = None

    def __call__(self, attn: SlotAttention, hidden_states: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (
            projected.unflatten(2, (attn.heads, -1))
            for projected in (attn.to_q(hidden_states), attn.to_k(states), attn.to_v(states))
        )
        backend = self._attention_backend or _AttentionBackendRegistry.get_active_backend()[0]
        if mask is not None and backend.value not in _TAKE_MASKS:
            backend = AttentionBackendName.NATIVE
        output: Tensor = dispatch_attention_fn(query, key, value, attn_mask=mask, backend=backend)
        return output.flatten(2, 3).type_as(query)


class SlotAttention(nn.Module):
    """What a slot adds to a block's video stream.

    It has no `get_processor` and `set_processor`: `set_attn_processor` would take it for one of the model's own.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, context: SlotContext) -> None:
        super().__init__()
        width = heads * head_dim
        self.heads = heads
        self.context = context
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.to_q = nn.Linear(dim, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.Linear(width, dim)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)
        self.processor = SlotAttnProcessor()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(N, S, C) to the same, 0 if there is no context. N is a multiple of the context's B: samples come first."""
        states, mask = self.context.states, self.context.mask
        if states is None:
            return torch.zeros_like(hidden_states)
        # All frames of a sample read the same context, so they can stand in one sequence of queries.
        queries = self.norm(hidden_states).reshape(states.shape[0], -1, hidden_states.shape[-1])
        output: Tensor = self.to_out(self.processor(self, queries, states, mask))
        return output.reshape(hidden_states.shape)


def install(model: Any, llm_slot: Mapping[str, Any]) -> None:
    """Give a stock model the slots that its config speaks of. Raises `CheckpointError` if they do not fit it."""
    heads, head_dim, llm_dim = (_number(llm_slot, key) for key in ("heads", "head_dim", "llm_dim"))
    blocks, widths, outputs = (_table(llm_slot, key) for key in ("blocks", "widths", "outputs"))
    model.slot_context = SlotContext()
    setattr(model, PROJECTOR, SlotProjector(llm_dim, heads * head_dim))
    for path, numbers in blocks.items():
        stack = _stack(model, path, numbers)
        dim, output = _number(widths, path, "widths."), outputs.get(path, 0)
        if output not in (0, 1):
            raise CheckpointError(f"config.json: llm_slot.outputs.{path} is {output!r:.60}, expected 0 or 1")
        for number in numbers:
            block: Any = stack[number]
            block.add_module(MODULE, SlotAttention(dim, heads, head_dim, model.slot_context))
            stock: Any = type(block)
            block.__class__ = with_slot(stock, output)


def slots_of(model: nn.Module) -> list[SlotAttention]:
    """All slots of a model, in order."""
    return [module for module in model.modules() if isinstance(module, SlotAttention)]


def _number(table: Mapping[str, Any], key: str, within: str = "") -> int:
    value = table.get(key)
    if type(value) is not int or value < 1:
        raise CheckpointError(f"config.json: llm_slot.{within}{key} is {value!r:.60}, expected a positive number")
    return value


def _table(llm_slot: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = llm_slot.get(key, {})
    if not isinstance(value, Mapping):
        raise CheckpointError(f"config.json: llm_slot.{key} is {value!r:.60}, expected a value for each stack")
    return value


def _stack(model: Any, path: str, numbers: Any) -> nn.ModuleList:
    try:
        stack: nn.Module = model.get_submodule(path)
    except AttributeError as error:
        raise CheckpointError(
            f"config.json: llm_slot speaks of {path!r}, which {type(model).__name__} lacks"
        ) from error
    listed = numbers if isinstance(numbers, list | tuple) else (None,)
    if not isinstance(stack, nn.ModuleList) or not all(type(n) is int and 0 <= n < len(stack) for n in listed):
        raise CheckpointError(
            f"config.json: llm_slot names blocks {numbers!r:.60} of {path!r}, which are not all there"
        )
    return stack
