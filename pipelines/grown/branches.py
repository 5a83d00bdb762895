"""Which prompts' states one call of a model reads: the wanted ones, the unwanted ones, or both.

Pipelines guide in three ways: one call with both halves, [negative; positive]; two calls in contexts that have
names, "cond" and "uncond"; two calls without. Shape letters: B prompts, N samples of a call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery import GenerateError

from ..text.states import joined

if TYPE_CHECKING:
    from ..text.states import LLMStates

_NAMES = {"cond": "positive", "pred_cond": "positive", "uncond": "negative", "pred_uncond": "negative"}


class Branches:
    """Hands a model its states, call by call, while a pipeline runs."""

    def __init__(self, positive: LLMStates, negative: LLMStates, repeats: int) -> None:
        self._positive, self._negative = positive, negative
        self.repeats = repeats
        """Samples of a prompt in a call: `num_videos_per_prompt`, as far as the pipeline keeps to it."""
        self._name: str | None = None

    @cached_property
    def positive(self) -> LLMStates:
        return self._positive.repeated(self.repeats)

    @cached_property
    def negative(self) -> LLMStates:
        return self._negative.repeated(self.repeats)

    @cached_property
    def both(self) -> LLMStates:
        return joined([self.negative, self.positive])

    @contextmanager
    def given_to(self, model: Any) -> Iterator[None]:
        """Inside, every call of the model gets its states as arguments."""
        inner = getattr(model, "_orig_mod", model)  # compiled: the hook stays outside of what is compiled
        handle = model.register_forward_pre_hook(self._hook(inner), with_kwargs=True)
        stock = inner.cache_context

        @contextmanager
        def named(name: str, *args: Any, **kwargs: Any) -> Iterator[None]:
            before, self._name = self._name, name
            try:
                with stock(name, *args, **kwargs):
                    yield
            finally:
                self._name = before

        inner.cache_context = named
        try:
            yield
        finally:
            del inner.cache_context
            handle.remove()

    def _hook(self, model: Any) -> Callable[..., Any]:
        names = tuple(inspect.signature(type(model).forward).parameters)[1:]  # offloading replaces its own `forward`
        first: list[torch.Tensor] = []

        def give(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if kwargs.get("llm_hidden_states") is not None:
                return None
            called = {**dict(zip(names, args, strict=False)), **kwargs}
            text = called.get("encoder_hidden_states")
            if isinstance(text, torch.Tensor) and not first and len(called[names[0]]) == len(self.positive):
                first.append(text)
            chosen = self._choose(model, len(called[names[0]]), wanted=not first or _same(text, first[0]))
            return args, {**kwargs, "llm_hidden_states": chosen.states, "llm_attention_mask": chosen.mask}

        return give

    def _choose(self, model: Any, samples: int, *, wanted: bool) -> LLMStates:
        """`samples` is N; `wanted`: the text is that of the first call, which is the prompt's in every pipeline."""
        count = len(self.positive)
        if samples == 2 * count:
            return self.both
        if samples != count:
            raise GenerateError(
                f"{type(model).__name__} is called with {samples} samples, and the language model read {count}; "
                f"expected {count}, or {2 * count} with guidance"
            )
        name = _NAMES.get(self._name or "", "positive" if wanted else "negative")
        return self.positive if name == "positive" else self.negative


def _same(a: Any, b: torch.Tensor) -> bool:
    return a is b or (isinstance(a, torch.Tensor) and a.shape == b.shape and torch.equal(a, b))
