"""What the slots of one model read during one forward pass.

Shape letters: B samples, L tokens of the language model, D width of its states, W width of the slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class SlotContext:
    """Held once by a model and by all its slots; filled while `forward` runs, empty otherwise.

    Not a module's buffer: it would be saved, and a copy of the model made after a forward pass with gradients
    could not be made at all (torch copies leaves only).
    """

    states: torch.Tensor | None = None
    """(B, L, W), projected."""
    mask: torch.Tensor | None = None
    """(B, 1, 1, L) bool, True where a token counts; None where all do."""

    def fill(self, states: torch.Tensor | None, mask: torch.Tensor | None) -> None:
        self.states = states
        self.mask = mask


class Checkpointing:
    """A gradient checkpointing function that runs blocks again with the context of their own forward pass.

    When a block is run again, in `backward`, the context is empty, or is already that of a later forward pass. An
    object, and not a closure, so that a copy of the model takes a copy with the copy's own context.
    """

    def __init__(self, function: Callable[..., Any], context: SlotContext) -> None:
        self.function = function
        self.context = context

    def __call__(self, module: Any, *args: Any) -> Any:
        if torch.compiler.is_compiling():  # what Dynamo traces holds the context's tensors themselves
            return self.function(module, *args)
        return self.function(_Bound(module, self.context), *args)


class _Bound:
    """A module together with what the context held when it ran first."""

    def __init__(self, module: Any, context: SlotContext) -> None:
        self.module = module
        self.context = context
        self.held = (context.states, context.mask)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        now = (self.context.states, self.context.mask)
        self.context.fill(*self.held)
        try:
            return self.module(*args, **kwargs)
        finally:
            self.context.fill(*now)
