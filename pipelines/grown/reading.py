"""The language model beside a pipeline: found, moved to work, and put away again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from diffusers.utils import logging

from modelgrow.surgery import GenerateError

from ..text.llm import load_llm
from ..text.reader import LAYER, MAX_LENGTH, TEMPLATE, PromptReader
from ..text.states import LLMStates

OFFLOADS = (None, "cpu", "free")
_SAME = ("layer", "template")
"""What must be the same for states to mean the same."""

_log = logging.get_logger(__name__)


class Reading:
    """Reads a pipeline's prompts as its slot's config says. Two models with slots read the same states."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._fetched: tuple[Any, Any] | None = None
        self._offload: str | None = None

    @property
    def slot(self) -> dict[str, Any]:
        """`llm_slot` of the model's config. Raises `GenerateError` if no model has one."""
        models = self._pipeline.slot_models
        if not models:
            raise GenerateError(f"{type(self._pipeline).__name__}: no model in it has a slot for a language model")
        return dict(next(iter(models.values())).config.llm_slot)

    @property
    def offload(self) -> str | None:
        return self._offload

    @offload.setter
    def offload(self, value: str | None) -> None:
        if value not in OFFLOADS:
            raise GenerateError(f"llm_offload is {value!r}; choose from None, 'cpu', 'free'")
        self._offload = value

    @property
    def available(self) -> bool:
        """Whether there is a language model, or a name of one to fetch."""
        return self._pipeline.llm is not None or self._fetched is not None or bool(self.slot.get("model"))

    def read(self, prompts: Sequence[str]) -> LLMStates:
        """States (B, L, D) on the pipeline's device. Raises `GenerateError` if there is nothing to read with."""
        slot = self.slot
        with self.at_work() as (llm, tokenizer):
            reader = PromptReader(
                llm,
                tokenizer,
                layer=str(slot.get("layer") or LAYER),
                template=str(slot.get("template") or TEMPLATE),
                max_length=int(slot.get("max_length") or MAX_LENGTH),
            )
            return self.checked(reader.read(prompts, device=self._pipeline._execution_device))

    def checked(self, states: LLMStates) -> LLMStates:
        """The same states. Raises `GenerateError` if they are not what the slot was made for."""
        slot, width = self.slot, states.states.shape[2]
        if width != slot["llm_dim"]:
            raise GenerateError(
                f"the states are {width} wide, and the slot was made for {slot['llm_dim']}: they are another language "
                f"model's than {slot.get('model') or 'the one that it was made for'}"
            )
        for name in _SAME:
            made = states.about.get(name)
            if made is not None and slot.get(name) is not None and made != slot[name]:
                raise GenerateError(f"the states were read with {name} {made!r}, and the slot with {slot[name]!r}")
        return states

    def rest(self) -> None:
        """Leave the device until there is something to read again, as with `offload` "cpu" from now on."""
        self._offload = self._offload or "cpu"
        llm = self._fetched[0] if self._pipeline.llm is None and self._fetched else self._pipeline.llm
        if llm is not None and not _moves_itself(llm):
            self._put_away(llm, llm.device)

    @contextmanager
    def at_work(self) -> Iterator[tuple[Any, Any]]:
        """The language model and its tokenizer, on the pipeline's device; then back, or away as `offload` says."""
        llm, tokenizer = self._find()
        before, device = llm.device, self._pipeline._execution_device
        if _moves_itself(llm):
            yield llm, tokenizer
            return
        if before != device:
            llm.to(device)
        try:
            yield llm, tokenizer
        finally:
            self._put_away(llm, before)

    def _find(self) -> tuple[Any, Any]:
        pipeline = self._pipeline
        if pipeline.llm is not None:
            if pipeline.llm_tokenizer is None:
                raise GenerateError(f"{type(pipeline).__name__} has an llm and no llm_tokenizer; give both")
            return pipeline.llm, pipeline.llm_tokenizer
        if self._fetched is None:
            slot = self.slot
            if not slot.get("model"):
                raise GenerateError(
                    f"{type(pipeline).__name__} has no language model and its slot names none; "
                    "give it as llm= and llm_tokenizer="
                )
            _log.info("loading the language model %s", slot["model"])
            dtype = next(iter(pipeline.slot_models.values())).dtype
            self._fetched = load_llm(slot["model"], revision=slot.get("revision"), dtype=dtype)
        return self._fetched

    def _put_away(self, llm: Any, before: torch.device) -> None:
        if self._offload == "free":
            self._fetched = None
            if self._pipeline.llm is llm:
                self._pipeline.register_modules(llm=None)
        elif self._offload == "cpu" or _offloaded(self._pipeline):
            llm.to("cpu")
        elif self._pipeline.llm is llm and llm.device != before:
            llm.to(before)
        if self._offload is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()


def _moves_itself(llm: torch.nn.Module) -> bool:
    """Sequential and group offloading hook the layers, which then come and go one by one."""
    return _is_group_offload_enabled(llm) or any(
        hasattr(module, "_hf_hook") for module in llm.modules() if module is not llm
    )


def _offloaded(pipeline: Any) -> bool:
    """Whether the pipeline's models leave the device when they have run, in one of diffusers' three ways."""
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    return any(hasattr(part, "_hf_hook") or _is_group_offload_enabled(part) for part in parts)
