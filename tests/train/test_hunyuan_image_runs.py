"""Runs of HunyuanVideo from a picture: what the cache holds of captions and clips, what trains, previews, a slot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attached import attach
from growths import grow
from PIL import Image
from tiny_hunyuan_llava import KINDS, SIZE, hunyuan_llava
from tiny_llms import byte_tokenizer, save_llm, tiny_llama
from tiny_runs import check_only_new_moved, differing, settings

from modelgrow.train.data.open import open_clips
from modelgrow.train.families import hunyuan_llava as family
from modelgrow.train.run import train
from modelgrow.train.settings import Settings
from modelgrow.train.setup import Run, set_up
from modelgrow.train.slot import MASK, STATES

# diffusers' schedulers with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZES: dict[str, Any] = dict(zip(("num_frames", "height", "width"), SIZE, strict=True))
CLIPS = "paraphrases:1:2"
"""With long captions."""
EVERY_NTH = {"latent-concat": 2, "token-replace": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`KIND/base`, `KIND/grown` with a block more, and an `llm`. Tests only read it."""
    root = tmp_path_factory.mktemp("hunyuan-image")
    save_llm(root / "llm", tiny_llama(), byte_tokenizer())
    for kind in KINDS:
        with torch.random.fork_rng():
            hunyuan_llava(kind).save_pretrained(root / kind / "base")
        grow(root / kind / "base", root / kind / "grown", "suffix", blocks=1)
        (root / kind / "grown" / "generation.json").write_text(json.dumps({"num_inference_steps": 2}))
    return root


def small(model: Path, output: Path, **changes: Any) -> Settings:
    return settings(model, output, **{"data": CLIPS, "steps": 2, "batch_size": 1, **SIZES, **changes})


def read_by_the_pipeline(run: Run, kind: str, picture: Image.Image, caption: str) -> torch.Tensor:
    states: torch.Tensor = run.pipeline.encode_prompt(picture, caption, image_embed_interleave=EVERY_NTH[kind])[0][0]
    return states


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_captions_are_cached_as_read_with_their_clips(kind: str, folder: Path, tmp_path: Path) -> None:
    """Not with one another's, and where there is none, with a black picture; the picture's latents stay."""
    run = set_up(small(folder / kind / "grown", tmp_path / "run", caption_dropout=1.0), lambda _: None)
    source = open_clips(CLIPS, **SIZES)
    pictures = {clip.key: Image.fromarray(source.read(clip, **SIZES)[0]) for clip in source.clips}
    black = Image.new("RGB", SIZE[:0:-1])
    empty = run.cache.empty_text()
    torch.testing.assert_close(empty["states"], read_by_the_pipeline(run, kind, black, ""))
    number = {key: place for place, key in enumerate(run.cache.keys)}
    for clip, other in zip(source.clips, reversed(source.clips), strict=True):
        example = run.cache.example(number[clip.key])
        for name, caption in (("text", clip.caption), ("long", clip.long_caption)):
            assert caption is not None
            expected = read_by_the_pipeline(run, kind, pictures[clip.key], caption)
            torch.testing.assert_close(example[f"{name}.states"], expected)
            wrong = read_by_the_pipeline(run, kind, pictures[other.key], caption)
            assert (example[f"{name}.states"] - wrong).abs().max() > 1e-2
    batch = run.batch(0)
    example = run.cache.example(batch.clips[0])
    assert torch.equal(batch.text["states"][0], empty["states"])
    assert torch.equal(batch.text[family.LATENTS][0], example[f"text.{family.LATENTS}"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_trains_what_is_new(kind: str, folder: Path, tmp_path: Path) -> None:
    model = folder / kind / "grown"
    shown = {"preview_every": 2, "previews": ("a red circle",), "held_out": 0.5}
    result = train(small(model, tmp_path / "run", **shown))
    check_only_new_moved(model, result)
    assert result.validation is not None
    previews = tmp_path / "run" / "previews"
    assert {path.name for path in previews.iterdir()} >= {"step-00000002-0.mp4", "step-00000002.png"}
    picture = np.asarray(Image.open(previews / "image.png"))
    source = open_clips(CLIPS, **SIZES)
    assert any(np.array_equal(picture, source.read(clip, **SIZES)[0]) for clip in source.clips)


def test_a_slot_reads_the_caption_beside_it(folder: Path, tmp_path: Path) -> None:
    base, reading = folder / "token-replace" / "base", {"template": "plain", "max_length": 40}
    model = attach(base, tmp_path / "slot", folder / "llm", **reading)
    chosen = small(model, tmp_path / "run", long_captions=0.5)
    run = set_up(chosen, lambda _: None)
    clips = {clip.key: clip for clip in open_clips(CLIPS, **SIZES).clips}
    stock = set_up(small(folder / "token-replace" / "grown", tmp_path / "stock"), lambda _: None)
    for number, key in enumerate(run.cache.keys):
        example, plain = run.cache.example(number), stock.cache.example(number)
        assert {name: value for name, value in example.items() if "llm" not in name}.keys() == plain.keys()
        for name, caption in (("text", clips[key].caption), ("long", clips[key].long_caption)):
            assert caption is not None
            torch.testing.assert_close(example[f"{name}.states"], plain[f"{name}.states"])
            assert int(example[f"{name}.{MASK}"].sum()) == min(len(caption), 40)
            assert example[f"{name}.{STATES}"].any()
    changed = differing(model, train(chosen).model)
    assert changed
    assert all("llm_" in name for name in changed)
