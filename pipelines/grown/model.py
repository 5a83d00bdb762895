"""Generated classes: "Grown" and the stock class's name, configured by `llm_slot` and `frame_extension`.

Shape letters: B samples, L tokens of the language model, D width of its states.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders.peft import _SET_ADAPTER_SCALE_FN_MAPPING
from diffusers.utils import logging
from torch import Tensor

from modelgrow.surgery import GenerateError
from modelgrow.surgery.extension import KEY as EXTENSION_KEY
from modelgrow.surgery.grown import grown_name
from modelgrow.surgery.slot import KEY as SLOT_KEY
from modelgrow.surgery.slot import PROJECTOR

from . import slot
from .context import Checkpointing, SlotContext

CONFIG_KEYS = (SLOT_KEY, EXTENSION_KEY)

_log = logging.get_logger(__name__)

Context = tuple[Tensor, Tensor | None]


class GrownModel:
    """What every grown class adds to its stock class.

    A slot reads what `forward` is given as `llm_hidden_states`, else what `set_llm_context` set. With neither it is
    skipped, and the model says so once: that is the base's function if only the slot was trained, and otherwise the
    function of a model that was never trained to do without.
    """

    stock: type[Any]
    slot_context: SlotContext | None = None
    _llm_contexts: Mapping[str, Context] = {}
    _llm_context: Context | None = None
    _llm_warned = False

    def set_llm_context(
        self, context: Tensor | Mapping[str, tuple[Tensor, Tensor | None]], mask: Tensor | None = None
    ) -> None:
        """What the next forward passes read, for callers that can't hand it to `forward`, such as stock pipelines.

        Args:
            context: (B, L, D) states; or, for pipelines that call the model once for each branch of guidance,
                (states, mask) by the name that they give to `cache_context`: "cond", "uncond" or "cond_uncond".
            mask: (B, L) bool, True where a token counts; a sample that is False throughout reads the null embedding.
        """
        self.clear_llm_context()
        if isinstance(context, Mapping):
            self._llm_contexts = dict(context)
        else:
            self._llm_context = (context, mask)

    def clear_llm_context(self) -> None:
        """Forget what `set_llm_context` set."""
        self._llm_contexts = {}
        self._llm_context = None

    @contextmanager
    def cache_context(self, name: str, **kwargs: Any) -> Iterator[None]:
        """diffusers' own, which also selects the context that was set under this name."""
        before = self._llm_context
        if self._llm_contexts:
            if name not in self._llm_contexts:
                raise GenerateError(
                    f"{type(self).__name__}: the pipeline runs the model as {name!r}, and LLM states were set for "
                    f"{', '.join(self._llm_contexts)} only"
                )
            self._llm_context = self._llm_contexts[name]
        stock = getattr(self.stock, "cache_context", None)
        try:
            with stock(self, name, **kwargs) if stock is not None else nullcontext():
                yield
        finally:
            self._llm_context = before

    def set_attention_backend(self, backend: str) -> None:
        """diffusers' own, for the slots too."""
        from diffusers.models.attention_dispatch import AttentionBackendName

        self.stock.set_attention_backend(self, backend)
        self._set_slot_backend(AttentionBackendName(backend.lower()))

    def reset_attention_backend(self) -> None:
        """diffusers' own, for the slots too."""
        self.stock.reset_attention_backend(self)
        self._set_slot_backend(None)

    def _set_slot_backend(self, backend: Any) -> None:
        for attention in slot.slots_of(self):  # type: ignore[arg-type]
            attention.processor._attention_backend = backend

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = torch.utils.checkpoint.checkpoint
    ) -> None:
        if self.slot_context is not None:
            gradient_checkpointing_func = Checkpointing(gradient_checkpointing_func, self.slot_context)
        self.stock._set_gradient_checkpointing(
            self, enable=enable, gradient_checkpointing_func=gradient_checkpointing_func
        )

    def _fill(self, like: Any, states: Tensor | None, mask: Tensor | None) -> None:
        """Project what there is to read, and hold it for the slots."""
        if states is None:
            if self._llm_context is None:
                self._say_empty()
                return
            states, mask = self._llm_context
        self._check(like, states, mask)
        if mask is not None:
            mask = mask.to(device=like.device, dtype=torch.bool)
        projector = getattr(self, PROJECTOR)
        self.slot_context.fill(*projector(states.to(device=like.device, dtype=like.dtype), mask))  # type: ignore[union-attr]

    def _check(self, like: Tensor, states: Tensor, mask: Tensor | None) -> None:
        llm_dim = self.config.llm_slot["llm_dim"]  # type: ignore[attr-defined]
        if states.ndim != 3 or states.shape[2] != llm_dim or like.shape[0] % states.shape[0]:
            raise GenerateError(
                f"{type(self).__name__}: LLM states have the shape {list(states.shape)}, expected one for each of "
                f"{like.shape[0]} samples, with any number of tokens, {llm_dim} wide"
            )
        if mask is not None and mask.shape != states.shape[:2]:
            raise GenerateError(
                f"{type(self).__name__}: the mask of the LLM states has the shape {list(mask.shape)}, the states "
                f"{list(states.shape)}; expected a True or False for each token"
            )

    def _say_empty(self) -> None:
        if self._llm_contexts:
            raise GenerateError(
                f"{type(self).__name__}: LLM states were set for {', '.join(self._llm_contexts)}, and the model runs "
                "outside cache_context, so which of them to read is not known"
            )
        if self._llm_warned or torch.compiler.is_compiling():
            return
        self._llm_warned = True
        _log.warning(
            "%s has a slot for a language model and runs WITHOUT its states: the slot is skipped, and what it learned "
            "does nothing. Load the whole pipeline, whose class reads the prompt with the language model too, or pass "
            "llm_hidden_states. (Said once.)",
            type(self).__name__,
        )


@cache
def grown_class(stock: type[Any]) -> type[Any]:
    """The grown class of a stock one. Raises `GenerateError` if it is no model of diffusers' kind."""
    if not issubclass(stock, ModelMixin) or issubclass(stock, GrownModel):
        raise GenerateError(f"{stock.__name__} is no diffusers model, so there is no grown class of it")
    name = grown_name(stock.__name__)
    if stock.__name__ in _SET_ADAPTER_SCALE_FN_MAPPING:  # how LoRAs are weighed block by block, by a class's name
        _SET_ADAPTER_SCALE_FN_MAPPING[name] = _SET_ADAPTER_SCALE_FN_MAPPING[stock.__name__]
    return type(
        name,
        (GrownModel, stock),
        {
            "__module__": "modelgrow.pipelines",
            "__qualname__": name,
            "__doc__": f"{stock.__name__} with a slot for a language model, or for longer clips, or both.",
            "__init__": _init_of(stock),
            "forward": _forward_of(stock),
            "stock": stock,
        },
    )


def is_grown(cls: type[Any]) -> bool:
    """Whether a class was generated here."""
    return issubclass(cls, GrownModel)


def stock_class(cls: type[Any]) -> type[Any]:
    """The stock class of a grown one; any other class is its own."""
    return cls.stock if issubclass(cls, GrownModel) else cls


def _init_of(stock: type[Any]) -> Callable[..., None]:
    # Without its decorator, which would register the stock class's arguments only.
    build = inspect.unwrap(stock.__init__)

    def init(self: Any, *args: Any, llm_slot: Any = None, frame_extension: Any = None, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        if llm_slot:
            slot.install(self, llm_slot)
        if frame_extension:
            from . import frames

            frames.install(self, frame_extension)

    # from_config and register_to_config read the signature: with *args and **kwargs the config would be lost.
    init.__signature__ = _extended(stock.__init__, CONFIG_KEYS)  # type: ignore[attr-defined]
    init.__name__ = "__init__"
    return register_to_config(init)  # type: ignore[no-any-return]


def _forward_of(stock: type[Any]) -> Callable[..., Any]:
    stock_forward = stock.forward
    names = tuple(inspect.signature(stock_forward).parameters)[1:]

    def forward(
        self: Any,
        *args: Any,
        llm_hidden_states: Tensor | None = None,
        llm_attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if self.config.frame_extension:
            from . import frames

            args, kwargs = (), frames.adjust(self, {**dict(zip(names, args, strict=False)), **kwargs})
        if self.slot_context is None:
            return stock_forward(self, *args, **kwargs)
        like = args[0] if args else kwargs[names[0]]
        self._fill(like, llm_hidden_states, llm_attention_mask)
        try:
            return stock_forward(self, *args, **kwargs)
        finally:
            self.slot_context.fill(None, None)

    forward.__signature__ = _extended(stock_forward, ("llm_hidden_states", "llm_attention_mask"))  # type: ignore[attr-defined]
    forward.__doc__ = f"{stock.__name__}.forward, with (B, L, D) states of a language model and their (B, L) mask."
    return forward


def _extended(function: Callable[..., Any], names: tuple[str, ...]) -> inspect.Signature:
    """A function's signature with optional keywords at its end."""
    signature = inspect.signature(function)
    kinds = [parameter for parameter in signature.parameters.values() if parameter.kind.name != "VAR_KEYWORD"]
    rest = [parameter for parameter in signature.parameters.values() if parameter.kind.name == "VAR_KEYWORD"]
    new = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
    return signature.replace(parameters=[*kinds, *new, *rest])
