"""Training a slot: both encoders' states are cached and dropped, and nothing but the slot changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attached import attach
from tiny_llms import WIDTH, byte_tokenizer, save_llm, tiny_llama
from tiny_pipelines import load_aligned, save_tiny_wan, tiny_clip
from tiny_runs import differing, record_of, settings

from modelgrow.pipelines.text.reader import PromptReader
from modelgrow.surgery import TrainError
from modelgrow.train.batch import generator_of, text_of
from modelgrow.train.loop import Loop
from modelgrow.train.run import train
from modelgrow.train.setup import set_up
from modelgrow.train.slot import MASK, STATES

LENGTH = 80


@pytest.fixture(scope="module")
def slot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan with a slot, its language model beside it. Tests only read it."""
    folder = tmp_path_factory.mktemp("slot")
    llm = save_llm(folder / "llm", tiny_llama(), byte_tokenizer())
    return attach(save_tiny_wan(folder / "base"), folder / "slot", llm, template="plain", max_length=LENGTH)


def states_of(slot: Path, caption: str) -> torch.Tensor:
    llm = tiny_llama()
    reader = PromptReader(llm, byte_tokenizer(), template="plain", max_length=LENGTH)
    return reader.read([caption]).states[0]


def test_both_readings_are_cached(slot: Path, tmp_path: Path) -> None:
    run = set_up(settings(slot, tmp_path / "run", data="paraphrases:1:4"), lambda _: None)
    clips = run_clips("paraphrases:1:4")
    for number, key in enumerate(run.cache.keys):
        example = run.cache.example(number)
        for kind, caption in (("text", clips[key].caption), ("long", clips[key].long_caption)):
            expected = states_of(slot, caption)
            mask = example[f"{kind}.{MASK}"]
            assert example[f"{kind}.{STATES}"].shape == (LENGTH, WIDTH)
            assert torch.equal(example[f"{kind}.{STATES}"][mask], expected)
            assert int(mask.sum()) == len(expected) == min(len(caption.encode()), LENGTH)
    empty = run.cache.empty_text()
    assert not empty[MASK].any()
    assert not empty[STATES].any()
    assert empty["states"].any()


def run_clips(spec: str) -> dict[str, Any]:
    from modelgrow.train.data.open import open_clips

    return {clip.key: clip for clip in open_clips(spec, num_frames=5, height=32, width=32).clips}


def test_only_the_slot_is_trained_and_it_is_read(slot: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    chosen = settings(slot, tmp_path / "run", data="paraphrases:1:4", steps=40, batch_size=4, caption_dropout=0.0)
    result = train(chosen, report=lambda progress: losses.append(progress.loss))
    assert losses[-1] < losses[0]
    record = record_of(result.model)
    assert differing(slot, result.model) == set(record.new)
    assert all("llm_" in name for name in record.new)
    fresh, learned = load_aligned(slot), load_aligned(result.model)
    fresh_clip = tiny_clip(fresh, "a red circle")
    assert torch.equal(fresh_clip, tiny_clip(load_aligned(slot.parent / "base"), "a red circle"))
    assert not torch.equal(tiny_clip(learned, "a red circle"), fresh_clip)


def test_the_model_is_given_what_the_batch_holds(slot: Path, tmp_path: Path) -> None:
    loop = Loop(run=set_up(settings(slot, tmp_path / "run"), lambda _: None), report=lambda _: None)
    torch.nn.init.normal_(loop.run.model.blocks[0].llm_attn.to_out.weight)
    batch = loop.batch(0)
    with torch.no_grad():
        here = loop.predict(batch)
        assert torch.equal(loop.predict(batch), here)
        for name in (STATES, MASK):
            other = {**batch.text, name: torch.zeros_like(batch.text[name])}
            assert not torch.equal(loop.predict(type(batch)(**{**vars(batch), "text": other})), here)


@pytest.mark.parametrize("dropout", ["together", "independently"])
def test_what_is_dropped(slot: Path, tmp_path: Path, dropout: str) -> None:
    chosen = settings(slot, tmp_path / "run", caption_dropout=0.25, long_captions=0.0, dropout=dropout)
    full = {"text.states": torch.ones(3, 2), f"text.{STATES}": torch.ones(5, 4), f"text.{MASK}": torch.ones(5) > 0}
    empty = {name.removeprefix("text."): torch.zeros_like(value) for name, value in full.items()}
    seen: dict[tuple[bool, bool], int] = {}
    for number in range(400):
        text = text_of(full, empty, chosen, generator_of(0, number))
        assert bool(text[MASK].any()) == bool(text[STATES].any())
        key = (bool(text["states"].any()), bool(text[STATES].any()))
        seen[key] = seen.get(key, 0) + 1
    if dropout == "together":
        assert set(seen) == {(True, True), (False, False)}
        assert 70 < seen[False, False] < 130
    else:
        # By chance 225, 75, 75, 25.
        assert 190 < seen[True, True] < 260
        assert 50 < seen[True, False] < 100
        assert 50 < seen[False, True] < 100
        assert 10 < seen[False, False] < 45


def test_settings(slot: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="dropout is 'never'; choose from together, independently"):
        settings(slot, tmp_path / "run", dropout="never")
