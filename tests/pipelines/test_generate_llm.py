"""`grow generate --llm`: the slot's language model from another place than the model names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attached import enliven
from slots import with_slot
from tiny_llms import byte_tokenizer, save_llm, tiny_llama
from tiny_pipelines import load_aligned

SIZES = ("--frames", "5", "--height", "32", "--width", "32", "--steps", "2", "--device", "cpu", "--json")
PROMPT = ("--prompt", "a red circle")


@pytest.fixture
def slot(tiny_pipeline: Path, tmp_path: Path) -> Path:
    """Names a language model that was here and has gone; `tmp_path / "moved"` is where it is now."""
    llm = save_llm(tmp_path / "llm", tiny_llama(), byte_tokenizer())
    pipeline = with_slot(load_aligned(tiny_pipeline), model=str(llm))
    enliven(pipeline.transformer)
    pipeline.save_pretrained(tmp_path / "slot")
    llm.rename(tmp_path / "moved")
    return tmp_path / "slot"


def test_it_reads_with_that_one(slot: Path, grow: Any, tmp_path: Path) -> None:
    def settings(name: str, *more: str) -> dict[str, Any]:
        code, out, err = grow("generate", "--model", str(slot), *PROMPT, *SIZES, "-o", f"{name}.gif", *more)
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)["settings"]
        return found

    code, _, err = grow("generate", "--model", str(slot), *PROMPT, *SIZES, "-o", "a.gif")
    assert code == 1
    assert "takes another place as --llm" in err
    moved = settings("a", "--llm", "moved")
    assert moved["llm"] == "moved"
    (tmp_path / "moved").rename(tmp_path / "llm")
    stayed = settings("b")
    assert "llm" not in stayed
    assert moved["frames_sha256"] == stayed["frames_sha256"]
    save_llm(tmp_path / "other", tiny_llama(seed=5), byte_tokenizer())
    assert settings("c", "--llm", "other")["frames_sha256"] != stayed["frames_sha256"]


def test_a_model_without_a_slot_is_told(tiny_pipeline: Path, grow: Any) -> None:
    code, _, err = grow("generate", "--model", str(tiny_pipeline), *PROMPT, *SIZES, "--llm", "gpt2")
    assert code == 1
    assert "has no slot for a language model, so there is nothing for gpt2 to read for" in err
