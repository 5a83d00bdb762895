"""A short prompt written out in detail, by a language model and ModelGrow's instruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from modelgrow.surgery import GenerateError

from .templates import rendered_chat

MIN_WORDS, MAX_WORDS = 35, 128
INSTRUCTION = (
    "Your task is to rewrite the provided prompt into a new one that offers more specific details. "
    "There are also some requirements: 1. Add specific details about objects, entities, and motions. "
    "2. Ensure the new prompt stays true to the original content. "
    f"3. Keep the rewritten prompt between {MIN_WORDS} and {MAX_WORDS} words."
)
"""ModelGrow (arXiv 2412.18966), its pipeline figure, word for word."""

ATTEMPTS = 4
_MAX_NEW_TOKENS = 320
_TEMPERATURE = 0.7


@dataclass(frozen=True, kw_only=True)
class Enhanced:
    """A prompt and what the language model made of it."""

    prompt: str
    expansion: str | None
    """None if no attempt kept to the instruction; the prompt then stands alone."""
    attempts: tuple[str, ...]
    """Everything that was written, in order."""

    @property
    def text(self) -> str:
        """What is to be read: the prompt and its expansion one after the other, as in ModelGrow."""
        return self.prompt if self.expansion is None else f"{self.prompt} {self.expansion}"

    @property
    def says(self) -> str:
        """One line for the user."""
        if self.expansion is not None:
            return f"expanded to {count_words(self.expansion)} words"
        counts = ", ".join(str(count_words(attempt)) for attempt in self.attempts)
        return (
            f"not expanded: {len(self.attempts)} attempts came to {counts} words, and {MIN_WORDS} to {MAX_WORDS} "
            "were asked for; the prompt is used as it is"
        )


@torch.no_grad()
def enhance(
    llm: Any, tokenizer: Any, prompt: str, *, seed: int = 0, device: torch.device | str | None = None
) -> Enhanced:
    """Let a language model rewrite a prompt until the number of words is right, at most four times.

    The first attempt is the likeliest continuation; the others are drawn, each from its own seed.

    Args:
        llm: A causal model of transformers, with its head.
        tokenizer: Its tokenizer; a chat template is used if there is one.
        prompt: What the user typed.
        seed: Of the attempts that are drawn; the same seed gives the same text.
        device: Where the tokens go; None is where the model is.

    Raises:
        GenerateError: The model can read, but not write.
    """
    if not (hasattr(llm, "can_generate") and llm.can_generate()) or getattr(llm.config, "is_encoder_decoder", False):
        raise GenerateError(
            f"{type(llm).__name__} reads text and can't write any; --enhance needs a causal language model, as "
            "Llama, Qwen or Gemma, in the slot"
        )
    inputs = _inputs(tokenizer, prompt).to(device or llm.device)
    attempts: list[str] = []
    for attempt in range(ATTEMPTS):
        attempts.append(_write(llm, tokenizer, inputs, None if attempt == 0 else seed * ATTEMPTS + attempt))
        if MIN_WORDS <= count_words(attempts[-1]) <= MAX_WORDS:
            return Enhanced(prompt=prompt, expansion=attempts[-1], attempts=tuple(attempts))
    return Enhanced(prompt=prompt, expansion=None, attempts=tuple(attempts))


def enhance_for(pipeline: Any, prompt: str, *, seed: int = 0) -> Enhanced:
    """The same with the language model of a pipeline's slot. Raises `GenerateError` if the pipeline has none."""
    if not getattr(pipeline, "slot_models", None):
        raise GenerateError(
            f"{type(pipeline).__name__} has no slot for a language model, so there is none to write the prompt out; "
            "'grow attach-llm' adds one"
        )
    enhanced: Enhanced = pipeline.enhance_prompt(prompt, seed=seed)
    return enhanced


def count_words(text: str) -> int:
    return len(text.split())


def _inputs(tokenizer: Any, prompt: str) -> torch.Tensor:
    if getattr(tokenizer, "chat_template", None):
        text = rendered_chat(tokenizer, INSTRUCTION, prompt, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, padding=False).input_ids
    else:
        ids = tokenizer(f"{INSTRUCTION}\n\nPrompt: {prompt}\nNew prompt:", padding=False).input_ids
    return torch.tensor([ids])


def _write(llm: Any, tokenizer: Any, inputs: torch.Tensor, seed: int | None) -> str:
    drawn = {"do_sample": False} if seed is None else {"do_sample": True, "temperature": _TEMPERATURE}
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed or 0)
        written = llm.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=_MAX_NEW_TOKENS,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            **drawn,
        )
    return _cleaned(tokenizer.decode(written[0, inputs.shape[1] :], skip_special_tokens=True))


def _cleaned(text: str) -> str:
    """One line, without the quotes that chat models like to put around a text."""
    return " ".join(text.split()).strip("\"'“” ")
