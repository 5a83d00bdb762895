"""A prompt written out in detail by a language model that was taught to."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_llms import byte_tokenizer, taught_llama, tiny_llama, tiny_t5, word_tokenizer

from modelgrow.pipelines.text.enhance import ATTEMPTS, INSTRUCTION, count_words, enhance, enhance_for
from modelgrow.surgery import GenerateError

GOOD, SHORT = "a red circle", "a blue square"
DETAILED = (
    "A large red circle with crisp edges begins at the left of a plain black frame and then glides steadily to the "
    "right while the camera stays fixed and even light falls on the calm scene from above without any shadow at all"
)


def asked(prompt: str) -> str:
    return f"{INSTRUCTION}\n\nPrompt: {prompt}\nNew prompt:"


@pytest.fixture(scope="module")
def writer() -> tuple[Any, Any]:
    pairs = [(asked(GOOD), DETAILED), (asked(SHORT), "a small blue square")]
    tokenizer = word_tokenizer(*(text for pair in pairs for text in pair))
    return taught_llama(tokenizer, pairs), tokenizer


def test_a_prompt_is_written_out(writer: tuple[Any, Any]) -> None:
    enhanced = enhance(*writer, GOOD)
    assert enhanced.expansion == DETAILED
    assert enhanced.text == f"{GOOD} {DETAILED}"
    assert enhanced.attempts == (DETAILED,)
    assert enhanced.says == "expanded to 43 words"
    assert count_words(DETAILED) == 43


def test_what_is_too_short_is_tried_again_then_left(writer: tuple[Any, Any]) -> None:
    enhanced = enhance(*writer, SHORT)
    assert enhanced.expansion is None
    assert enhanced.text == SHORT
    assert len(enhanced.attempts) == ATTEMPTS
    assert enhanced.attempts[0] == "a small blue square"
    assert enhanced.says.startswith("not expanded: 4 attempts came to 4, ")
    assert enhance(*writer, SHORT).attempts == enhanced.attempts


def test_who_can_not_write() -> None:
    with pytest.raises(GenerateError, match="reads text and can't write any"):
        enhance(tiny_t5(), byte_tokenizer(), GOOD)
    with pytest.raises(GenerateError, match="can't write any"):
        enhance(tiny_llama().model, byte_tokenizer(), GOOD)
    with pytest.raises(GenerateError, match="has no slot for a language model"):
        enhance_for(object(), GOOD)
