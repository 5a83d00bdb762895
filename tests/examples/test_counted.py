"""Counted pads: the same answers as with all 512, in less."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modelgrow.examples.shapes.counted import KEPT, KEPT_OF_ANY, CountedText, counting
from modelgrow.examples.shapes.source import open_shapes
from modelgrow.pipelines.foundation import foundation_path
from modelgrow.pipelines.load import load_pipeline
from modelgrow.surgery import DataError
from modelgrow.train.families import family_of
from modelgrow.train.trunk import recorded, replayed


def test_counted_pads_are_the_pads() -> None:
    stock = family_of("WanTransformer3DModel")
    counted = CountedText(stock)
    captions = ["", *(clip.caption for clip in open_shapes("shapes:1-3:3").clips)]
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn((4, 16, 9, 8, 8), generator=generator)
    timesteps = torch.tensor([1000.0, 800.0, 500.0, 100.0])
    pipelines: list[Any] = [load_pipeline(foundation_path(), device="cpu", dtype="float32") for _ in range(2)]
    with torch.no_grad():
        texts = [family.encode_text(pipelines[0], captions) for family in (stock, counted)]
        expected = stock.predict(pipelines[0], pipelines[0].transformer, noisy, timesteps, texts[0])
        with recorded(pipelines[1].transformer, "blocks", 5) as outputs:
            found = counted.predict(pipelines[1], pipelines[1].transformer, noisy, timesteps, texts[1])
        with replayed(pipelines[1].transformer, "blocks", 5, (outputs[0],)):
            cached = counted.predict(pipelines[1], pipelines[1].transformer, noisy, timesteps, texts[1])
        texts[1]["bias"][..., -1] = 0.0  # one pad only: another function
        other = counted.predict(pipelines[1], pipelines[1].transformer, noisy, timesteps, texts[1])
    assert texts[1]["states"].shape[1] == KEPT + 1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(cached, found)
    assert (other - expected).abs().max() > 0.05


def test_the_pipelines_own_calls_count_pads() -> None:
    pipeline: Any = load_pipeline(foundation_path(), device="cpu", dtype="float32")
    pipeline.set_progress_bar_config(disable=True)

    def latents(prompts: list[str]) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
        options = {"height": 64, "width": 64, "num_frames": 5, "num_inference_steps": 2, "guidance_scale": 3.0}
        found: torch.Tensor = pipeline(prompts, generator=generators, output_type="latent", **options).frames
        return found

    prompts = ["a red circle moves right", "a blue square stays still and a red star moves up"]
    expected = latents(prompts)
    lengths: list[int] = []
    watch = pipeline.transformer.blocks[0].attn2.register_forward_pre_hook(
        lambda _module, args: lengths.append(args[1].shape[1])
    )
    with counting(pipeline.transformer):
        found = latents(prompts)
    again = latents(prompts)
    watch.remove()
    assert lengths == [KEPT + 1] * 4 + [512] * 4
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(again, expected)


def test_a_caption_from_elsewhere_is_refused() -> None:
    pipeline: Any = load_pipeline(foundation_path(), device="cpu")
    with pytest.raises(DataError, match="tokens; 32 are kept"):
        CountedText(family_of("WanTransformer3DModel")).encode_text(pipeline, ["a red circle moves right " * 9])


def test_other_words_need_more_tokens() -> None:
    pipeline: Any = load_pipeline(foundation_path(), device="cpu", dtype="float32")
    stock = family_of("WanTransformer3DModel")
    wide = CountedText(stock, kept=KEPT_OF_ANY)
    longest = max((clip.long_caption or "" for clip in open_shapes("paraphrases:3:200").clips), key=len)
    noisy = torch.randn(2, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    answers = []
    with torch.no_grad():
        for family in (stock, wide):
            text = family.encode_text(pipeline, [longest, "a crimson disc drifts west"])
            answers.append(family.predict(pipeline, pipeline.transformer, noisy, torch.tensor([900.0, 300.0]), text))
    assert text["states"].shape[1] == KEPT_OF_ANY + 1
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-3, atol=1e-3)
