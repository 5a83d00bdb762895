"""Blocks with a slot behind them: a subclass of the stock block's class, under the same name.

The name stays, because `compile_repeated_blocks`, accelerate's device maps and FSDP's wrapping find blocks by it.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch import nn


@cache
def with_slot(stock: type[nn.Module], output: int) -> type[nn.Module]:
    """The class of a block that adds its slot to its video stream.

    Args:
        stock: The block's own class.
        output: Where the video stands in what the block returns, if that is a tuple.
    """
    # A plain function: Dynamo does not trace `super().forward` of a class that is allowed in its graphs as it is.
    stock_forward = stock.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = stock_forward(self, *args, **kwargs)
        if self.llm_attn.context.states is None:
            return outputs
        if isinstance(outputs, torch.Tensor):
            return outputs + self.llm_attn(outputs)
        hidden_states = outputs[output] + self.llm_attn(outputs[output])
        return (*outputs[:output], hidden_states, *outputs[output + 1 :])

    # Caches find arguments by their places in the signature.
    forward.__signature__ = inspect.signature(stock_forward)  # type: ignore[attr-defined]

    def after_text(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states if self.llm_attn.context.states is None else hidden_states + self.llm_attn(hidden_states)

    # A block of ours says where the paper has it: right behind the cross-attention to the prompt.
    method = {"after_text": after_text} if hasattr(stock, "after_text") else {"forward": forward}
    names = {"__module__": stock.__module__, "__qualname__": stock.__qualname__, "__doc__": stock.__doc__}
    slotted = type(stock.__name__, (stock,), {**names, **method})
    _register(stock, slotted)
    return slotted


def _register(stock: type[nn.Module], slotted: type[nn.Module]) -> None:
    """Caches look a block up by its exact class."""
    from dataclasses import replace

    from diffusers.hooks._helpers import TransformerBlockRegistry

    TransformerBlockRegistry._register()
    known = TransformerBlockRegistry._registry.get(stock)
    if known is not None:
        TransformerBlockRegistry.register(slotted, replace(known))
