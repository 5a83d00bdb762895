"""What becomes of a prompt before the text encoder reads it.

The functions have the reference's names (`opensora/utils/inference_utils.py`, `models/text_encoder/t5.py`), so that its
scripts and these examples can be read side by side.
"""

from __future__ import annotations

import html
import re
import warnings
from functools import cache
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from bs4 import MarkupResemblesLocatorWarning
from diffusers import PixArtAlphaPipeline

from modelgrow.surgery import CheckpointError, GenerateError, strict_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FROM_LOOP = re.compile(r"\|([0-9]+)\|")
_SETTINGS = ("reference_path", "mask_strategy")


def append_score_to_prompts(
    prompts: Sequence[str], aes: float | None = None, flow: float | None = None, camera_motion: str | None = None
) -> list[str]:
    """Say after each prompt how good looking the clip is and how much moves, unless it says so itself.

    Args:
        prompts: Prompts.
        aes: Aesthetic score; 6.5 is what the reference asks for.
        flow: Motion score.
        camera_motion: Such as "pan left".
    """
    suffixes = {
        "aesthetic score": None if aes is None else f"{aes:.1f}",
        "motion score": None if flow is None else f"{flow:.1f}",
        "camera motion": camera_motion,
    }
    return [
        prompt + "".join(f" {k}: {v}." for k, v in suffixes.items() if v is not None and f"{k}:" not in prompt)
        for prompt in prompts
    ]


def text_preprocessing(text: str, clean: bool = True) -> str:
    """Lower case, and without links, brackets, Chinese characters and more: what PixArt's captions went through.

    Twice, as the reference does. The rules are those of diffusers' PixArt pipeline, from which Open-Sora's weights
    descend, and which has them under Apache-2.0.

    Args:
        text: A prompt, its scores behind it.
        clean: False only lowers the case.
    """
    if not clean:
        return text.lower().strip()
    clean_caption = _clean_caption()
    with warnings.catch_warnings():
        # BeautifulSoup takes a prompt that looks like an address or a file name for a mistake.
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        for _ in range(2):
            text = clean_caption(PixArtAlphaPipeline, text)
    return text


@cache
def _clean_caption() -> Callable[[Any, str], str]:
    """diffusers' rules, which differ from the reference's by one `strip` after HTML's entities.

    It decides what stands at an end for the rules that come after, so diffusers' function is given an `html` that
    strips, rather than written again.
    """
    stock: Any = PixArtAlphaPipeline._clean_caption
    stripping = SimpleNamespace(unescape=lambda text: html.unescape(text).strip())
    return FunctionType(stock.__code__, {**stock.__globals__, "html": stripping})


def split_prompt(prompt: str) -> tuple[list[str], list[int] | None]:
    """ "|0| a calm sea |2| a storm" -> its texts, and the loop that each begins with; None for a plain prompt.

    Raises:
        GenerateError: The loops do not ascend.
    """
    parts = _parts(prompt)
    if parts is None:
        return [prompt], None
    return [text.strip() for _, text in parts], [loop for loop, _ in parts]


def extract_prompts_loop(prompts: Sequence[str], num_loop: int) -> list[str]:
    """The text of each prompt for loop `num_loop`, counted from 0. Raises `GenerateError` as `split_prompt` does."""
    found = [(prompt, _parts(prompt)) for prompt in prompts]
    return [
        prompt if parts is None else [text for loop, text in parts if loop <= num_loop][-1] for prompt, parts in found
    ]


def prepare_prompt(
    prompt: str,
    *,
    aes: float | None = None,
    flow: float | None = None,
    camera_motion: str | None = None,
    clean: bool = True,
) -> str:
    """A prompt, or each of its texts for the loops, with scores and cleaned, in this order."""
    texts, loops = split_prompt(prompt)
    texts = append_score_to_prompts(texts, aes, flow, camera_motion)
    texts = [text_preprocessing(text, clean) for text in texts]
    return texts[0] if loops is None else "".join(f"|{loop}|{text}" for loop, text in zip(loops, texts, strict=True))


def prepare_prompts(prompts: str | Sequence[str] | None, **options: Any) -> list[str] | None:
    """`prepare_prompt` of one or several; None stays None."""
    if prompts is None:
        return None
    return [prepare_prompt(prompt, **options) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]


def extract_json_from_prompts(
    prompts: Sequence[str], reference: Sequence[str], mask_strategy: Sequence[str]
) -> tuple[list[str], list[str], list[str]]:
    """Take apart prompts like `a car {"reference_path": "x.png", "mask_strategy": "0"}`.

    Args:
        prompts: One for each clip.
        reference, mask_strategy: Of each clip, for prompts that do not say.

    Returns:
        Texts, paths joined by ";", mask strategies. No file is opened.

    Raises:
        GenerateError: What stands in braces is no JSON object of these two texts.
    """
    texts, rest = [], {"reference_path": list(reference), "mask_strategy": list(mask_strategy)}
    for number, prompt in enumerate(prompts):
        text, brace, inside = prompt.partition("{")
        texts.append(text)
        if not brace:
            continue
        for name, value in _settings(brace + inside, prompt).items():
            rest[name][number] = value
    return texts, rest["reference_path"], rest["mask_strategy"]


def _settings(text: str, prompt: str) -> dict[str, str]:
    try:
        found = strict_json.parse_object(text.encode("utf-8", "surrogatepass"), where=f"prompt {prompt[:80]!r}")
    except CheckpointError as error:
        raise GenerateError(str(error)) from error
    for name, value in found.items():
        if name not in _SETTINGS or not isinstance(value, str):
            raise GenerateError(
                f"prompt {prompt[:80]!r}: {name} is {value!r}; known are texts for {' and '.join(_SETTINGS)}"
            )
    return found


def _parts(prompt: str) -> list[tuple[int, str]] | None:
    if not prompt.startswith("|0|"):
        return None
    pieces = _FROM_LOOP.split(prompt)[1:]
    parts = [(int(loop), text) for loop, text in zip(pieces[::2], pieces[1::2], strict=True)]
    loops = [loop for loop, _ in parts]
    if loops != sorted(set(loops)):
        raise GenerateError(f"{prompt[:80]!r}: the loops must ascend, found {', '.join(map(str, loops))}")
    return parts
