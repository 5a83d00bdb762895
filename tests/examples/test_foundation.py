"""The foundation that ships: small, stock, repeatable, and it draws what the prompt says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from transformers import AutoTokenizer

from modelgrow.examples.shapes import make_clip, short_caption
from modelgrow.examples.shapes.training.conditioning import embed, pad_bias, tokenize, use_counted_pads
from modelgrow.examples.shapes.training.export import GENERATION_FILE
from modelgrow.examples.shapes.training.measure import generate, make_prompts, tally
from modelgrow.examples.shapes.training.settings import MEASURE_SEED, TRAIN_SEED, VALIDATION_SEED
from modelgrow.examples.shapes.training.tokenizer import build_tokenizer
from modelgrow.examples.shapes.training.whole_clip import decode_unclamped, encode_moments

FOLDER = Path(sys.modules["modelgrow.examples.shapes"].__file__ or "").parent / "foundation"
PROMPT = "a red circle moves right"

STOCK = """
import sys
sys.modules["modelgrow"] = None  # importing it now fails
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained(sys.argv[1])
print(type(pipeline).__name__, *sorted(type(part).__name__ for part in pipeline.components.values() if part))
"""


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((FOLDER / GENERATION_FILE).read_text())
    values.pop("fps")
    return values


@pytest.fixture(scope="module")
def pipeline() -> WanPipeline:
    pipeline = WanPipeline.from_pretrained(FOLDER)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def clip(pipeline: WanPipeline, seed: int, **settings: Any) -> np.ndarray:
    return next(generate(pipeline, [PROMPT], seed=seed, **settings))


def test_it_is_small_and_holds_no_pickle() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}


def test_its_configs_name_no_path_of_a_machine() -> None:
    for path in FOLDER.rglob("*.json"):
        assert "_name_or_path" not in path.read_text(), path
        assert not re.search(r'"/\w', path.read_text()), path


def test_stock_diffusers_loads_it_without_our_code() -> None:
    run = subprocess.run([sys.executable, "-c", STOCK, str(FOLDER)], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [
        "WanPipeline",
        "AutoencoderKLWan",
        "FlowMatchEulerDiscreteScheduler",
        "T5Tokenizer",
        "UMT5EncoderModel",
        "WanTransformer3DModel",
    ]


def test_no_weight_is_trivial() -> None:
    model = WanTransformer3DModel.from_pretrained(FOLDER / "transformer")
    for name, weight in model.named_parameters():
        assert weight.isfinite().all(), name
        assert weight.unique().numel() > 8, name


def test_the_tokenizer_knows_every_word_and_survives_the_disk() -> None:
    stored, built = AutoTokenizer.from_pretrained(FOLDER / "tokenizer"), build_tokenizer()
    assert stored("").input_ids == [stored.eos_token_id]
    for index in range(200):
        shown = make_clip(seed=VALIDATION_SEED, index=index, num_frames=1, height=16, width=16)
        for text in (shown.caption, shown.detailed_caption):
            ids = stored(text).input_ids
            assert ids == built(text).input_ids
            assert stored.decode(ids, skip_special_tokens=True) == text
        words = len(shown.caption.replace(",", " ,").split())
        assert len(stored(shown.caption).input_ids) == words + 1  # one token a word, and the end
    odd = stored("qwxyz 123!").input_ids
    assert stored.unk_token_id not in odd


def test_measuring_uses_seeds_that_training_never_saw() -> None:
    assert MEASURE_SEED not in {TRAIN_SEED, VALIDATION_SEED}
    prompts = {short_caption(scene) for scene in make_prompts(216, 1, MEASURE_SEED)}
    assert len(prompts) == 216  # every colour, shape and motion once


def test_the_same_seed_gives_the_same_clip(pipeline: WanPipeline, settings: dict[str, Any]) -> None:
    few = settings | {"num_inference_steps": 4}
    first = clip(pipeline, 3, **few)
    assert first.shape == (17, 64, 64, 3)
    assert np.array_equal(first, clip(pipeline, 3, **few))
    assert not np.array_equal(first, clip(pipeline, 4, **few))


def test_it_reads_prompts_padded_to_any_length(pipeline: WanPipeline, settings: dict[str, Any]) -> None:
    """The pipeline's usual padding is 512; with 32 the clips differ in what is left to chance, not in what is asked."""
    scenes = make_prompts(6, 1, MEASURE_SEED + 2)
    prompts = [short_caption(scene) for scene in scenes]
    found = tally(scenes, generate(pipeline, prompts, seed=MEASURE_SEED, **settings, max_sequence_length=32))
    assert found.colors >= 5 / 6
    assert found.directions >= 5 / 6


def test_it_draws_what_the_prompt_says(pipeline: WanPipeline, settings: dict[str, Any]) -> None:
    """A sixteenth of the real measurement, with other noise; the whole table is in measured.json."""
    scenes = make_prompts(16, 1, MEASURE_SEED + 1)
    prompts = [short_caption(scene) for scene in scenes]
    found = tally(scenes, generate(pipeline, prompts, seed=MEASURE_SEED + 1, **settings))
    assert found.colors >= 14 / 16
    assert found.shapes >= 13 / 16
    assert found.directions >= 13 / 16


def test_the_measured_table_meets_its_promise() -> None:
    measured = json.loads((FOLDER / "measured.json").read_text())
    one = measured["scores"]["one object"]
    assert measured["seed"] == MEASURE_SEED
    assert measured["settings"] == json.loads((FOLDER / GENERATION_FILE).read_text())
    assert one["prompts"] >= 256
    assert one["colors"] >= 0.90
    assert one["shapes"] >= 0.85
    assert one["directions"] >= 0.85


def test_training_sees_whole_clips_as_the_stock_vae_does() -> None:
    vae = AutoencoderKLWan.from_pretrained(FOLDER / "vae", torch_dtype=torch.float32)
    pixels = torch.from_numpy(make_clip(seed=VALIDATION_SEED, index=0).frames).permute(3, 0, 1, 2)[None] / 127.5 - 1
    with torch.no_grad():
        moments = vae._encode(pixels)
        decoded = vae.decode(moments[:, : vae.config.z_dim]).sample
        torch.testing.assert_close(encode_moments(vae, pixels), moments, rtol=1e-4, atol=1e-4)
        ours = decode_unclamped(vae, moments[:, : vae.config.z_dim])
    torch.testing.assert_close(ours.clamp(-1, 1), decoded, rtol=1e-4, atol=1e-4)
    assert (ours != decoded).any()


def test_counted_pads_weigh_as_much_as_real_ones(pipeline: WanPipeline) -> None:
    transformer = WanTransformer3DModel.from_pretrained(FOLDER / "transformer", torch_dtype=torch.float32)
    ids, mask = tokenize(pipeline.tokenizer, [PROMPT, ""])
    latents, timestep = torch.randn(2, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((2,), 700.0)
    with torch.no_grad():
        states = embed(pipeline.text_encoder.float(), ids, mask)
        padded = torch.cat([states[:, :-1], states.new_zeros(2, 512 - mask.shape[1], states.shape[2])], dim=1)
        stock = transformer(latents, timestep, padded, return_dict=False)[0]
        pads = use_counted_pads(transformer)
        pads.bias = pad_bias(mask, torch.full((2,), 512))
        counted = transformer(latents, timestep, states, return_dict=False)[0]
        pads.bias = pad_bias(mask, torch.full((2,), 64))
        fewer = transformer(latents, timestep, states, return_dict=False)[0]
    torch.testing.assert_close(counted, stock, rtol=1e-4, atol=1e-4)
    assert (fewer - stock).abs().max() > 1e-3
