"""A pipeline loads with every tensor where CPU kernels want it, or a sentence says why it can't."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from hub_server import Hub
from safetensors.torch import load_file, save_file

from modelgrow.pipelines import foundation
from modelgrow.pipelines.load import load_pipeline, locate
from modelgrow.surgery import GenerateError

WEIGHTS = Path("transformer", "diffusion_pytorch_model.safetensors")


def tensors(pipeline: Any) -> list[torch.Tensor]:
    modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


def unaligned(pipeline: Any) -> int:
    return sum(tensor.data_ptr() % 64 != 0 for tensor in tensors(pipeline))


def test_no_tensor_is_left_unaligned(tiny_pipeline: Path) -> None:
    mapped: Any = DiffusionPipeline
    assert unaligned(mapped.from_pretrained(str(tiny_pipeline))) > 0
    assert unaligned(load_pipeline(tiny_pipeline)) == 0


@pytest.mark.parametrize(("name", "dtype"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_dtype_is_that_of_every_component(tiny_pipeline: Path, name: str, dtype: torch.dtype) -> None:
    pipeline: Any = load_pipeline(str(tiny_pipeline), device="cpu", dtype=name)
    assert pipeline.text_encoder.dtype == pipeline.vae.dtype == pipeline.transformer.dtype == dtype


def test_loads_without_a_word(tiny_pipeline: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_pipeline(tiny_pipeline)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no/such/folder", "no such folder, and not a Hub id"),
        ("nothing", "no such folder, and not a Hub id"),
        ("{tiny}/transformer", "one component of a pipeline. Name the pipeline: {tiny}"),
        ("{tiny}/model_index.json", "a file; generating needs a whole pipeline"),
        ("{tmp}", "there is no model_index.json in it"),
        ("{tmp}/run", "there is no model_index.json in it. Name one of those in it: {tmp}/run/model"),
        ("{tmp}/alone", "one model, not a pipeline"),
    ],
)
def test_names_that_are_no_pipeline(tiny_pipeline: Path, tmp_path: Path, name: str, words: str) -> None:
    shutil.copytree(tiny_pipeline / "transformer", tmp_path / "alone")
    shutil.copytree(tiny_pipeline, tmp_path / "run" / "model")
    places = {"tiny": tiny_pipeline, "tmp": tmp_path}
    with pytest.raises(GenerateError) as caught:
        load_pipeline(name.format(**places))
    assert words.format(**places) in str(caught.value)


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(GenerateError, match=r"^some/model: not a folder here, and it can't be had from the Hub"):
        load_pipeline("some/model")


def refusal(model: str, **options: str) -> str:
    with pytest.raises(GenerateError) as caught:
        load_pipeline(model, **options)  # type: ignore[arg-type]
    return str(caught.value)


class TestHub:
    def test_what_diffusers_loads(self, hub: Hub, tiny_pipeline: Path, tmp_path: Path) -> None:
        folder = tmp_path / "pipeline"
        shutil.copytree(tiny_pipeline, folder)
        (folder / "generation.json").write_text('{"num_frames": 5}')
        hub.publish("a/b", folder)
        found = locate("a/b")
        assert (found / "generation.json").read_text() == '{"num_frames": 5}'
        assert (found / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
        hub.requests.clear()
        assert locate("a/b", without=["transformer"]) == found
        assert not hub.asked(".safetensors") + hub.asked("generation.json")

    def test_a_component_that_is_given_stays_there(self, hub: Hub, tiny_pipeline: Path) -> None:
        hub.publish("a/b", tiny_pipeline)
        locate("a/b", without=["transformer"])
        assert {request.name.partition("/")[0] for request in hub.asked(".safetensors")} == {"text_encoder", "vae"}

    def test_refusals(self, hub: Hub, tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.publish("a/b", tiny_pipeline)
        hub.publish("a/alone", tiny_pipeline / "transformer")
        hub.publish("a/gated", tiny_pipeline)
        hub.gated.add("a/gated")
        assert "there is no such model, or it is private" in refusal("a/missing")
        assert f"it is gated. Accept its terms on {hub.endpoint}/a/gated, run 'hf auth login'" in refusal("a/gated")
        assert "it has no branch, tag or commit 'v9'" in refusal("a/b", revision="v9")
        assert refusal("a/alone").startswith("a/alone: one model, not a pipeline")
        assert not hub.asked(".safetensors")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        assert "HF_HUB_OFFLINE forbids to ask" in refusal("a/b")
        hub.page = b"<html>"
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        assert "Check HF_ENDPOINT" in refusal("a/other")


def truncate(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(file.seek(0, 2) - 100)


def drop_tensor(folder: Path) -> None:
    kept = load_file(folder / WEIGHTS)
    del kept["blocks.1.attn1.to_q.weight"]
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})


def shorten_config(folder: Path) -> None:
    """As diffusers would have it, block 1 is silently left out."""
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_layers": 1}))


def name_unknown_class(folder: Path) -> None:
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "transformer": ["diffusers", "NoSuchTransformer"]}))


def pickle_weights(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "diffusion_pytorch_model.safetensors"),
        (drop_tensor, "transformer: blocks.1.attn1.to_q.weight is not in the weights"),
        (shorten_config, "is in the weights for nothing, by what config.json says of WanTransformer3DModel"),
        (name_unknown_class, "NoSuchTransformer"),
        (pickle_weights, "diffusion_pytorch_model.safetensors"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_damage(tiny_pipeline: Path, tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_pipeline, folder)
    damage(folder)
    with pytest.raises(GenerateError) as caught:
        load_pipeline(folder)
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
        ({"device": "quantum"}, "device 'quantum' can't be used here"),
        ({"device": "cuda:99"}, "device 'cuda:99' can't be used here"),
        ({"offload": "everything"}, "unknown offload 'everything'"),
        ({"device": "cpu", "offload": "model"}, "needs them; here that is the CPU"),
        ({"variant": "fp16"}, "the pipeline can't be loaded"),
    ],
    ids=str,
)
def test_options_that_can_not_be_met(tiny_pipeline: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(GenerateError, match=words):
        load_pipeline(tiny_pipeline, **options)


def test_installation_without_foundation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foundation, "_folder", lambda: tmp_path)
    with pytest.raises(GenerateError, match="this installation is incomplete"):
        load_pipeline(None)
