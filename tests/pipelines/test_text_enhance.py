"""A prompt written out in detail by a language model that was taught to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from slots import with_slot
from tiny_llms import byte_tokenizer, save_llm, taught_llama, tiny_llama, tiny_t5, word_tokenizer
from tiny_pipelines import load_aligned

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


def test_grow_generate_enhance(writer: tuple[Any, Any], tiny_pipeline: Path, grow: Any, tmp_path: Path) -> None:
    llm = save_llm(tmp_path / "llm", *writer)
    with_slot(load_aligned(tiny_pipeline), model=str(llm)).save_pretrained(tmp_path / "slot")
    sizes = ("--frames", "5", "--height", "32", "--width", "32", "--steps", "2", "--device", "cpu", "--json")
    code, out, err = grow("generate", "--model", "slot", "--prompt", GOOD, "--enhance", *sizes, "-o", "a.gif")
    assert code == 0, err
    assert f"expanded to 43 words\n{GOOD} {DETAILED}" in err
    assert json.loads(out)["settings"]["prompt"] == f"{GOOD} {DETAILED}"
    code, out, err = grow("generate", "--model", str(tiny_pipeline), "--prompt", GOOD, "--enhance", *sizes)
    assert code == 1
    assert "'grow attach-llm' adds one" in err
