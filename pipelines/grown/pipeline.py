"""Generated pipelines: "Grown" and the stock pipeline's name, with a language model that reads every prompt too.

    import modelgrow.pipelines
    pipeline = DiffusionPipeline.from_pretrained("wan-slot")     # a GrownWanPipeline
    pipeline("a crimson disc drifts west")                       # read by T5 and by the language model

A slot needs no argument to be used. `llm` and `llm_tokenizer` are optional components: where the folder has none, the
model's config says which language model to fetch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from typing import Any, get_type_hints

import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import logging

from modelgrow.surgery import GenerateError
from modelgrow.surgery.grown import grown_name

from ..text.states import LLMStates, joined, none_of
from .branches import Branches
from .model import GrownModel, grown_class
from .reading import Reading

COMPONENTS = ("llm", "llm_tokenizer")
_ARGUMENTS = ("llm_states", "negative_llm_states")
_PER_PROMPT = ("num_videos_per_prompt", "num_images_per_prompt")

_log = logging.get_logger(__name__)


class GrownPipeline:
    """What every grown pipeline adds to its stock class.

    `__call__` takes `llm_states` and `negative_llm_states` besides: states from `encode_llm`, made here before or on
    another machine, in place of reading the prompts.
    """

    stock: type[Any]
    llm: Any
    llm_tokenizer: Any
    _branches: Branches | None = None
    _said = False

    @property
    def slot_models(self) -> dict[str, Any]:
        """The components with a slot, by name."""
        parts: Mapping[str, Any] = self.components  # type: ignore[attr-defined]
        return {name: part for name, part in parts.items() if _has_slot(part)}

    @property
    def reading(self) -> Reading:
        """How and with what the language model reads; its `offload` says where it is kept between two prompts."""
        if not hasattr(self, "_reading"):
            self._reading = Reading(self)
        return self._reading

    @property
    def llm_offload(self) -> str | None:
        """Where the language model goes when it has read: None (it stays), "cpu", or "free" (out of memory)."""
        return self.reading.offload

    @llm_offload.setter
    def llm_offload(self, value: str | None) -> None:
        self.reading.offload = value

    @classmethod
    def _get_signature_types(cls) -> dict[str, Any]:
        """For diffusers' `from_pipe`, which takes over models of just the classes named here: the grown too."""
        found: dict[str, Any] = super()._get_signature_types()  # type: ignore[misc]
        return {name: (*types, *_grown_too(types)) for name, types in found.items()}

    def encode_llm(self, prompt: str | Sequence[str]) -> LLMStates:
        """What the slot reads of prompts: states (B, L, D), to be passed as `llm_states` or saved.

        Raises:
            GenerateError: The pipeline has no slot, or its language model can't be loaded.
        """
        return self.reading.read([prompt] if isinstance(prompt, str) else list(prompt))

    def enhance_prompt(self, prompt: str, *, seed: int = 0) -> Any:
        """The prompt in detail, written by the same language model: see `text.enhance.enhance`."""
        from ..text.enhance import enhance

        with self.reading.at_work() as (llm, tokenizer):
            return enhance(llm, tokenizer, prompt, seed=seed, device=self._execution_device)  # type: ignore[attr-defined]

    @contextmanager
    def _read_along(
        self, given: Mapping[str, Any], states: LLMStates | None, negative: LLMStates | None
    ) -> Iterator[None]:
        """Read what a call was given, and hand it to the models while the call runs."""
        models = self.slot_models
        prompt = given.get("prompt")
        if not models or (states is None and not self._can_read(prompt)):
            yield
            return
        positive = self._states(states, prompt)
        unwanted = given.get("negative_prompt")
        if negative is None and not unwanted:
            against = none_of(positive, len(positive))
        else:
            against = _matched(self._states(negative, unwanted), len(positive))
        repeats = next((given[name] for name in _PER_PROMPT if given.get(name)), 1)
        self._branches = Branches(positive, against, repeats)
        try:
            with ExitStack() as stack:
                for model in models.values():
                    stack.enter_context(self._branches.given_to(model))
                yield
        finally:
            self._branches = None

    def _states(self, states: LLMStates | None, prompt: Any) -> LLMStates:
        found = self.encode_llm(prompt) if states is None else self.reading.checked(states)
        return found.to(self._execution_device)  # type: ignore[attr-defined]

    def _can_read(self, prompt: Any) -> bool:
        if prompt is not None and self.reading.available:
            return True
        if not self._said:
            self._said = True
            reason = (
                "was given prompt_embeds and no llm_states; pass what encode_llm(prompt) returns"
                if prompt is None
                else "has a slot for a language model and no language model; give it as llm= and llm_tokenizer="
            )
            _log.warning(
                "%s %s. The clip is made WITHOUT what the slot learned. (Said once.)", type(self).__name__, reason
            )
        return False


@cache
def grown_pipeline(stock: type[Any]) -> type[Any]:
    """The grown class of a stock pipeline. Raises `GenerateError` if it is no pipeline of diffusers' kind."""
    if not issubclass(stock, DiffusionPipeline) or issubclass(stock, GrownPipeline):
        raise GenerateError(f"{stock.__name__} is no stock pipeline of diffusers, so there is no grown class of it")
    members: dict[str, Any] = {
        "__module__": "modelgrow.pipelines",
        "__qualname__": grown_name(stock.__name__),
        "__doc__": f"{stock.__name__} whose prompts are read by a language model too.",
        "__init__": _init_of(stock),
        "__call__": _call_of(stock),
        "_optional_components": [*stock._optional_components, *COMPONENTS],
        "stock": stock,
    }
    if stock.model_cpu_offload_seq is not None:
        members["model_cpu_offload_seq"] = f"llm->{stock.model_cpu_offload_seq}"
    if hasattr(stock, "encode_prompt"):
        members["encode_prompt"] = _encode_of(stock)
    return type(grown_name(stock.__name__), (GrownPipeline, stock), members)


def _init_of(stock: type[Any]) -> Callable[..., None]:
    def init(self: Any, *args: Any, llm: Any = None, llm_tokenizer: Any = None, **kwargs: Any) -> None:
        stock.__init__(self, *args, **kwargs)
        self.register_modules(llm=llm, llm_tokenizer=llm_tokenizer)

    # diffusers reads components off the signature, and their types off the annotations.
    init.__signature__ = _extended(stock.__init__, COMPONENTS)  # type: ignore[attr-defined]
    init.__annotations__ = get_type_hints(stock.__init__)
    init.__name__ = "__init__"
    return init


def _call_of(stock: type[Any]) -> Callable[..., Any]:
    stock_call = stock.__call__
    signature = inspect.signature(stock_call)

    @torch.no_grad()
    def call(
        self: Any,
        *args: Any,
        llm_states: LLMStates | None = None,
        negative_llm_states: LLMStates | None = None,
        **kwargs: Any,
    ) -> Any:
        given = signature.bind_partial(self, *args, **kwargs).arguments
        with self._read_along(given, llm_states, negative_llm_states):
            return stock_call(self, *args, **kwargs)

    call.__signature__ = _extended(stock_call, _ARGUMENTS)  # type: ignore[attr-defined]
    call.__doc__ = stock_call.__doc__
    call.__name__ = "__call__"
    return call


def _encode_of(stock: type[Any]) -> Callable[..., Any]:
    """The stock's, listening: some pipelines make one clip per prompt whatever they were asked for."""
    stock_encode = stock.encode_prompt
    signature = inspect.signature(stock_encode)

    @wraps(stock_encode)
    def encode_prompt(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._branches is not None:
            given = signature.bind_partial(self, *args, **kwargs).arguments
            self._branches.repeats = next(
                (given[name] for name in _PER_PROMPT if name in given), self._branches.repeats
            )
        return stock_encode(self, *args, **kwargs)

    return encode_prompt


def _extended(function: Callable[..., Any], names: Sequence[str]) -> inspect.Signature:
    signature = inspect.signature(function)
    new = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
    parameters = list(signature.parameters.values())
    at = next((i for i, parameter in enumerate(parameters) if parameter.kind.name == "VAR_KEYWORD"), len(parameters))
    return signature.replace(parameters=[*parameters[:at], *new, *parameters[at:]])


def _grown_too(types: Sequence[Any]) -> Iterator[type[Any]]:
    models: list[Any] = [kind for kind in types if isinstance(kind, type) and issubclass(kind, ModelMixin)]
    for model in models:
        if not issubclass(model, GrownModel):
            yield grown_class(model)


def _has_slot(part: Any) -> bool:
    return isinstance(getattr(part, "_orig_mod", part), GrownModel) and bool(part.config.llm_slot)


def _matched(states: LLMStates, count: int) -> LLMStates:
    """One negative prompt for all, or one for each."""
    if len(states) == count:
        return states
    if len(states) != 1:
        raise GenerateError(f"{len(states)} negative prompts for {count} prompts; give one for all, or one for each")
    return joined([states] * count)
