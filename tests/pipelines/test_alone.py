"""A component by itself makes the clip that it makes inside a pipeline, or a sentence says why it can't."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attached import attach
from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter
from growths import grow as expand
from growths import overwrite
from hub_server import Hub
from tiny_adapter import save_adapter, save_stable_diffusion
from tiny_llms import byte_tokenizer, save_llm, tiny_llama
from tiny_runs import grow_tiny_wan

from modelgrow.pipelines.alone import load_alone
from modelgrow.pipelines.generate import GenerateOptions, generate
from modelgrow.pipelines.load import load_pipeline
from modelgrow.pipelines.models import align
from modelgrow.pipelines.motion_adapter import SCHEDULE
from modelgrow.pipelines.produce import Loading, produce
from modelgrow.surgery import GrowError, open_checkpoint

OPTIONS = GenerateOptions(
    prompt="a red circle moves right", num_frames=5, height=32, width=32, num_inference_steps=2, guidance_scale=3.0
)


def learn(folder: Path, *, seed: int = 3) -> Path:
    """What is new in a component becomes noise, so that the function is not the base's any more."""
    checkpoint, generator = open_checkpoint(folder), torch.Generator().manual_seed(seed)
    assert checkpoint.record
    for name in checkpoint.record.new:
        noise = torch.randn(checkpoint.tensors[name].shape, generator=generator) * 0.3
        overwrite(folder, name, noise.numpy().tobytes())
    return folder


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`; `grown` of it, with one block more that has learned something; that block's transformer, `alone`."""
    folder = tmp_path_factory.mktemp("wan")
    learn(grow_tiny_wan(folder) / "transformer")
    shutil.copytree(folder / "grown" / "transformer", folder / "alone")
    return folder


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline `sd`; a motion adapter, `adapter`; and `adapter-grown`, which has learned something."""
    folder = tmp_path_factory.mktemp("adapters")
    save_stable_diffusion(folder / "sd")
    learn(expand(save_adapter(folder / "adapter"), folder / "adapter-grown", blocks=1))
    return folder


def sha(pipeline: Any, options: GenerateOptions = OPTIONS) -> str:
    return str(generate(pipeline, options).settings["frames_sha256"])


class TestTransformer:
    def test_it_makes_the_clip_of_the_whole_pipeline(self, wan: Path) -> None:
        expected = sha(load_pipeline(wan / "grown", device="cpu"))
        assert sha(load_alone(wan / "alone", wan / "base", device="cpu")) == expected
        assert sha(load_alone(wan / "grown" / "transformer", wan / "base", device="cpu")) == expected
        assert sha(load_pipeline(wan / "base", device="cpu")) != expected

    def test_both_may_come_from_the_hub_and_the_settings_say_so(self, hub: Hub, wan: Path) -> None:
        """The commits too: what was made is made again after both have moved on."""
        commits = hub.publish("somebody/alone", wan / "alone"), hub.publish("somebody/wan", wan / "base")
        first = generate(load_alone("somebody/alone", "somebody/wan", device="cpu"), OPTIONS)
        assert first.settings["frames_sha256"] == sha(load_pipeline(wan / "grown", device="cpu"))
        names = ("model", "revision", "component", "runs_in", "runs_in_revision")
        assert [first.settings[name] for name in names] == [
            "somebody/alone",
            commits[0],
            "transformer",
            "somebody/wan",
            commits[1],
        ]
        asked = hub.asked("transformer/diffusion_pytorch_model.safetensors")
        assert asked
        assert all(request.range for request in asked), "of what is replaced the header is read, and no more"
        again = load_alone(
            "somebody/alone", "somebody/wan", revision=commits[0], pipeline_revision=commits[1], device="cpu"
        )
        assert generate(again, OPTIONS).settings == first.settings

    def test_with_a_slot_it_reads_along(self, wan: Path, grow: Any, tmp_path: Path) -> None:
        llm = save_llm(tmp_path / "llm", tiny_llama(), byte_tokenizer())
        slot = attach(wan / "base" / "transformer", tmp_path / "slot", llm, template="plain", max_length=80)
        whole = attach(wan / "base", tmp_path / "whole", llm, template="plain", max_length=80)
        learn(slot)
        learn(whole / "transformer")
        expected = sha(load_pipeline(whole, device="cpu"))
        pipeline = load_alone(slot, wan / "base", device="cpu")
        assert type(pipeline).__name__ == "GrownWanPipeline"
        assert sha(pipeline) == expected != sha(load_pipeline(wan / "base", device="cpu"))
        llm.rename(tmp_path / "moved")
        made = produce(
            str(slot),
            OPTIONS,
            tmp_path / "a.gif",
            loading=Loading(device="cpu", pipeline=str(wan / "base"), llm=str(tmp_path / "moved")),
        )
        assert made.clip.settings["frames_sha256"] == expected


class TestMotionAdapter:
    def test_it_is_what_diffusers_makes_of_the_two(self, adapters: Path, tmp_path: Path) -> None:
        def plain(name: str) -> np.ndarray:
            adapter: Any = MotionAdapter.from_pretrained(adapters / name)
            pipeline: Any = AnimateDiffPipeline.from_pretrained(adapters / "sd", motion_adapter=adapter)
            pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **SCHEDULE)
            for model in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
                align(model)
            frames = pipeline(
                OPTIONS.prompt,
                num_frames=5,
                height=32,
                width=32,
                num_inference_steps=2,
                guidance_scale=3.0,
                generator=torch.Generator().manual_seed(0),
                output_type="np",
            ).frames[0]
            return np.asarray((frames.clip(0, 1) * 255).round().astype(np.uint8))

        loading = Loading(device="cpu", pipeline=str(adapters / "sd"))
        made = produce(str(adapters / "adapter-grown"), OPTIONS, tmp_path / "a.gif", loading=loading)
        assert np.array_equal(made.clip.frames, plain("adapter-grown"))
        assert not np.array_equal(made.clip.frames, plain("adapter"))

    def test_its_settings_make_the_clip_again(self, adapters: Path, tmp_path: Path) -> None:
        loading = Loading(device="cpu", pipeline=str(adapters / "sd"))
        produce(str(adapters / "adapter-grown"), OPTIONS, tmp_path / "a.gif", loading=loading)
        settings = json.loads((tmp_path / "a.json").read_text())["settings"]
        pipeline = load_alone(
            settings["model"],
            settings["runs_in"],
            component=settings["component"],
            device=settings["device"],
            dtype=settings["dtype"],
        )
        assert sha(pipeline, GenerateOptions.from_settings(settings)) == settings["frames_sha256"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("model", "pipeline", "words"),
        [
            ("{wan}/grown", "{wan}/base", "grown: a whole pipeline; --pipeline is for a component by itself"),
            ("{wan}/alone", "{wan}/base/vae", "no pipeline: there is no model_index.json in it"),
            ("{wan}/alone", "{sd}/sd", "sd: has no WanTransformer3DModel, which .*/alone is"),
            ("{sd}/adapter", "{wan}/base", "is plugged into a Stable Diffusion pipeline, and base has no unet"),
            (
                "{wan}/base/text_encoder",
                "{wan}/base",
                "text_encoder: UMT5EncoderModel; a component by itself is a model of",
            ),
            ("{wan}/alone", "{wan}/nothing", "no such folder or file, and not a Hub id"),
        ],
    )
    def test_what_does_not_go_together(self, wan: Path, adapters: Path, model: str, pipeline: str, words: str) -> None:
        places = {"wan": wan, "sd": adapters}
        with pytest.raises(GrowError, match=words):
            load_alone(model.format(**places), pipeline.format(**places), device="cpu")

    def test_another_model_of_the_same_class(self, wan: Path, tmp_path: Path) -> None:
        shutil.copytree(wan / "base", tmp_path / "other")
        file = tmp_path / "other" / "transformer" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "ffn_dim": 64}))
        with pytest.raises(GrowError, match="ffn_dim is 32, and 64 in other's transformer, so it is of another model"):
            load_alone(wan / "alone", tmp_path / "other", device="cpu")

    def test_weights_that_are_no_safetensors(self, wan: Path, tmp_path: Path) -> None:
        shutil.copytree(wan / "alone", tmp_path / "pickled")
        weights = tmp_path / "pickled" / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_suffix(".bin"))
        with pytest.raises(GrowError, match="safetensors"):
            load_alone(tmp_path / "pickled", wan / "base", device="cpu")

    def test_which_of_two_transformers(self, wan: Path, tmp_path: Path) -> None:
        shutil.copytree(wan / "base", tmp_path / "two")
        shutil.copytree(tmp_path / "two" / "transformer", tmp_path / "two" / "transformer_2")
        file = tmp_path / "two" / "model_index.json"
        index = json.loads(file.read_text())
        file.write_text(json.dumps({**index, "transformer_2": index["transformer"], "boundary_ratio": 0.5}))
        with pytest.raises(GrowError, match="transformer and transformer_2 are WanTransformer3DModel; say with --comp"):
            load_alone(wan / "alone", tmp_path / "two", device="cpu")
        made = load_alone(wan / "alone", tmp_path / "two", component="transformer_2", device="cpu")
        assert (made.transformer.config.num_layers, made.transformer_2.config.num_layers) == (2, 3)

    def test_the_command(self, wan: Path, grow: Any) -> None:
        def refused(*words: str) -> str:
            code, _, err = grow("generate", "--prompt", "a cat", "--device", "cpu", *words)
            assert code == 1
            return str(err)

        base, alone = str(wan / "base"), str(wan / "alone")
        assert "one model, not a pipeline" in (err := refused("--model", alone))
        assert "Give --pipeline, the one that it belongs to" in err
        assert "name the component with --model" in refused("--pipeline", base)
        assert "--component says what --pipeline calls the model" in refused("--model", base, "--component", "vae")
        words = ("--frames", "5", "--height", "32", "--width", "32", "--steps", "2", "--json", "-o", "a.gif")
        code, out, err = grow(
            "generate", "--prompt", "a cat", "--device", "cpu", "--model", alone, "--pipeline", base, *words
        )
        assert code == 0, err
        settings = json.loads(out)["settings"]
        assert (settings["model"], settings["runs_in"], settings["pipeline"]) == (alone, base, "WanPipeline")
