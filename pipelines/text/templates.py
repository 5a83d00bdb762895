"""What stands around a prompt when a language model reads it, and what of it is a prompt's own.

A template steers what the hidden states are about. Its own tokens are the same for every prompt, so they are
cropped away and only the prompt's are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelgrow.surgery import GenerateError

SYSTEM = "You are a helpful language and vision assistant."
"""ModelGrow, its pipeline figure: the opening of LLaVA-NeXT's system prompt."""

_MARK = "\ue000"  # private use: in no prompt, and no tokenizer's template changes it


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A prompt in its template. The prompt is `text[start:end]`."""

    text: str
    start: int
    end: int
    add_special_tokens: bool
    """Whether the tokenizer puts its own, such as BOS or [CLS], around the text."""


def render(name: str, prompt: str, tokenizer: Any) -> Rendered:
    """A prompt in the template of that name.

    Raises:
        GenerateError: There is no such template, or the tokenizer has none of its own to render.
    """
    if name not in TEMPLATES:
        raise GenerateError(f"unknown template {name!r}; choose from {', '.join(TEMPLATES)}")
    prefix, suffix, special = TEMPLATES[name](tokenizer)
    prompt = prompt.strip()
    start = len(prefix)
    return Rendered(text=prefix + prompt + suffix, start=start, end=start + len(prompt), add_special_tokens=special)


def _plain(tokenizer: Any) -> tuple[str, str, bool]:
    return "", "", True


def _modelgrow(tokenizer: Any) -> tuple[str, str, bool]:
    """As its figure has it: "... assistant. <eos> <eot_id> Prompt <eot_id>", in the tokenizer's own such tokens."""
    eos = tokenizer.eos_token or tokenizer.sep_token or ""
    eot = "<|eot_id|>" if "<|eot_id|>" in tokenizer.get_vocab() else eos
    opening = " ".join(part for part in (SYSTEM, eos, eot) if part)
    return opening + " ", f" {eot}" if eot else "", True


def _hunyuan_video(tokenizer: Any) -> tuple[str, str, bool]:
    """HunyuanVideo's, for Llama 3 models: it asks for contents, colors, motions, background and camera."""
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

    prefix, _, suffix = str(DEFAULT_PROMPT_TEMPLATE["template"]).partition("{}")
    return prefix, suffix, True


def _chat(tokenizer: Any) -> tuple[str, str, bool]:
    """The tokenizer's own chat template, the prompt being what the user says."""
    if not getattr(tokenizer, "chat_template", None):
        raise GenerateError(
            f"{type(tokenizer).__name__} has no chat template, so its model was not made to chat; "
            "choose the template 'plain' or 'modelgrow'"
        )
    text = rendered_chat(tokenizer, SYSTEM, _MARK, add_generation_prompt=False)
    prefix, mark, suffix = text.partition(_MARK)
    if not mark or _MARK in suffix:
        raise GenerateError("the tokenizer's chat template does not repeat what the user says; choose 'modelgrow'")
    return prefix, suffix, False


def rendered_chat(tokenizer: Any, system: str, user: str, *, add_generation_prompt: bool) -> str:
    """Two messages by the tokenizer's chat template; in one where, as in Gemma's, there is no system."""
    from jinja2 import TemplateError

    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError:
        both = [{"role": "user", "content": f"{system}\n\n{user}"}]
        text = tokenizer.apply_chat_template(both, tokenize=False, add_generation_prompt=add_generation_prompt)
    return str(text)


TEMPLATES = {"plain": _plain, "modelgrow": _modelgrow, "hunyuan-video": _hunyuan_video, "chat": _chat}
"""By name: from a tokenizer to what stands before a prompt and after it, and whether special tokens are added."""
