"""From a prompt to a language model's hidden states of it.

Shape letters: B prompts, L tokens, D width of the language model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch

from modelgrow.surgery import GenerateError

from .states import LLMStates, joined
from .templates import render

_log = logging.getLogger(__name__)

MAX_LENGTH = 256
LAYER = "mean"
TEMPLATE = "plain"


class PromptReader:
    """A language model with a choice of layer and template.

    Prompts go through one by one, without padding. So it does not matter on which side a tokenizer pads or what a
    model does with pads, and a prompt's states depend on nothing else: not on the batch it came in, to the bit.

    Args:
        llm: Any text model of transformers, causal, encoder-decoder (its encoder reads) or encoder; of a
            multimodal one, the language model reads.
        tokenizer: Its tokenizer, a fast one: only those say which characters a token stands for.
        layer: "last"; "-2", "-3" and so on, counted from there; or "mean", the average of all layers, each
            normalized to mean 0 and variance 1 per token, which Wang et al. (arXiv 2506.08210) found best.
        template: A name of `templates.TEMPLATES`.
        max_length: Tokens of a prompt that are read. Of a longer one the end is cut off, with a warning.

    Raises:
        GenerateError: The layer, the template, or the tokenizer will not do.
    """

    def __init__(
        self,
        llm: Any,
        tokenizer: Any,
        *,
        layer: str = LAYER,
        template: str = TEMPLATE,
        max_length: int = MAX_LENGTH,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise GenerateError(
                f"{type(tokenizer).__name__} does not say which characters a token stands for, so a template can't "
                "be cropped; load the fast tokenizer (a folder with tokenizer.json has one)"
            )
        self.body = text_model(llm)
        self.tokenizer = tokenizer
        self.layer = check_layer(layer, self.body)
        self.template = template
        self.max_length = max_length
        render(template, "", tokenizer)
        self.about: dict[str, Any] = {"layer": layer, "template": template, "max_length": max_length}

    @torch.no_grad()
    def read(self, prompts: Sequence[str], *, device: torch.device | None = None) -> LLMStates:
        """Hidden states (B, L, D) in the model's dtype; L is the longest prompt's, at least 1.

        `device` is where the tokens go; None is where the weights are.
        """
        place = device or next(self.body.parameters()).device
        seen = {prompt: self._read(prompt, place) for prompt in dict.fromkeys(prompts)}
        return joined([seen[prompt] for prompt in prompts])

    def _read(self, prompt: str, device: torch.device) -> LLMStates:
        ids, kept = self.tokens(prompt)
        if kept.start == kept.stop:
            width = self.body.get_input_embeddings().embedding_dim
            states = torch.zeros(1, 1, width, device=device, dtype=self.body.dtype)
            return LLMStates(states=states, mask=torch.zeros(1, 1, dtype=torch.bool, device=device), about=self.about)
        inputs = torch.tensor([ids], device=device)
        output = self.body(input_ids=inputs, attention_mask=torch.ones_like(inputs), output_hidden_states=True)
        states = choose_layer(output.hidden_states, self.layer)[:, kept]
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=device)
        return LLMStates(states=states, mask=mask, about=self.about)

    def tokens(self, prompt: str) -> tuple[list[int], slice]:
        """All tokens that go into the model, and which of them are the prompt's own."""
        rendered = render(self.template, prompt, self.tokenizer)
        encoded = self.tokenizer(
            rendered.text,
            add_special_tokens=rendered.add_special_tokens,
            padding=False,
            truncation=False,
            return_offsets_mapping=True,
        )
        ids: list[int] = list(encoded["input_ids"])
        own = [
            place
            for place, (start, end) in enumerate(encoded["offset_mapping"])
            if start < end and start < rendered.end and end > rendered.start
        ]
        if not own:
            return ids, slice(0, 0)
        first, stop = own[0], own[-1] + 1
        room = self._room(len(ids) - (stop - first))
        if stop - first > room:
            lost = self.tokenizer.decode(ids[first + room : stop])
            _log.warning("the language model reads %d tokens of a prompt; cut off: %r", room, lost)
            ids = ids[: first + room] + ids[stop:]
            stop = first + room
        return ids, slice(first, stop)

    def _room(self, around: int) -> int:
        """Tokens of a prompt that fit beside so many of its template."""
        positions = getattr(self.body.config, "max_position_embeddings", None)
        return self.max_length if positions is None else max(1, min(self.max_length, positions - around))


def text_model(llm: Any) -> Any:
    """The part of a model that reads text: an encoder, or the decoder without its head and its eyes."""
    return llm.get_encoder() if getattr(llm.config, "is_encoder_decoder", False) else llm.get_decoder()


def check_layer(layer: str, body: Any) -> str:
    """Raises `GenerateError` if the model has no such layer."""
    depth = getattr(body.config, "num_hidden_layers", None)
    if layer in ("last", "mean"):
        return layer
    if layer.startswith("-") and layer[1:].isdecimal() and 1 <= int(layer[1:]) <= (depth or int(layer[1:])):
        return layer
    raise GenerateError(f"layer {layer!r} is none of the language model's; choose last, mean, or -1 to -{depth}")


def choose_layer(hidden_states: Sequence[torch.Tensor], layer: str) -> torch.Tensor:
    """(B, L, D) from the embeddings and every layer's output, as transformers gives them."""
    if layer == "last":
        return hidden_states[-1]
    if layer != "mean":
        return hidden_states[int(layer)]
    layers = hidden_states[1:]
    normal = (torch.nn.functional.layer_norm(states.float(), states.shape[-1:]) for states in layers)
    return (reduce(torch.add, normal) / len(layers)).to(layers[0].dtype)
