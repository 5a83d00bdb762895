"""A packed growth onto a loaded pipeline: the grown folder's outputs to the bit, and the base's memory shared."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES
from diffusers import WanTransformer3DModel
from growths import grow, pack
from hub_server import Hub
from models import build, save
from tiny_pipelines import load_aligned, tiny_clip

from modelgrow.pipelines import load_growth
from modelgrow.pipelines.models import align
from modelgrow.pipelines.probes import random_inputs, run_model
from modelgrow.surgery import (
    CheckpointError,
    SourceError,
    open_checkpoint,
)

WAN = next(row for row in ARCHITECTURES if row.class_name == "WanTransformer3DModel")
COGVIDEOX = next(row for row in ARCHITECTURES if row.class_name == "CogVideoXTransformer3DModel")


def train(folder: Path) -> None:
    """Give every zeroed tensor values, so that the growth is no identity any more."""
    checkpoint = open_checkpoint(folder)
    assert checkpoint.record is not None
    for number, name in enumerate(checkpoint.record.zeroed):
        tensor = checkpoint.tensors[name]
        dtype = {"F32": torch.float32, "BF16": torch.bfloat16}[tensor.dtype]
        values = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number)).to(dtype) * 0.3
        with tensor.file.open("r+b") as file:
            file.seek(tensor.offset)
            file.write(values.contiguous().view(torch.uint8).numpy().tobytes())


def clip(pipeline: Any) -> torch.Tensor:
    return tiny_clip(pipeline, "a red circle moves right")


def outputs(model: Any, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    align(model)
    inputs = random_inputs(type(model).__name__, model.config, seed=3, device=torch.device("cpu"), dtype=dtype)
    return list(run_model(model.eval(), inputs))


@pytest.fixture(scope="module")
def grown(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline with a trained growth, and `growth.safetensors` beside its folder."""
    folder = tmp_path_factory.mktemp("growth")
    output = grow(tiny_pipeline, folder / "grown", mode="insert")
    train(output / "transformer")
    pack(output, folder / "growth.safetensors")
    return output


def growth_of(grown: Path) -> Path:
    return grown.parent / "growth.safetensors"


def test_pipeline_runs_as_the_grown_folder_does(tiny_pipeline: Path, grown: Path, tmp_path: Path) -> None:
    pipeline = load_aligned(tiny_pipeline)
    before = clip(pipeline)
    old = pipeline.transformer
    weights = (tiny_pipeline / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes()

    assert load_growth(pipeline, growth_of(grown)) is pipeline

    assert type(pipeline.transformer) is WanTransformer3DModel
    assert pipeline.transformer.config.num_layers == 4
    assert len(pipeline.transformer.blocks) == 4
    found = clip(pipeline)
    assert torch.equal(found, clip(load_aligned(grown)))
    assert not torch.equal(found, before)
    assert (tiny_pipeline / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes() == weights
    shared = {tensor.data_ptr() for tensor in old.parameters()}
    assert {tensor.data_ptr() for tensor in pipeline.transformer.parameters()} >= shared
    assert not pipeline.transformer.training

    pipeline.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "model_index.json").read_text())["transformer"] == [
        "diffusers",
        "WanTransformer3DModel",
    ]
    assert torch.equal(clip(load_aligned(tmp_path / "saved")), found)


def test_another_dtype_than_stored(tiny_pipeline: Path, grown: Path) -> None:
    """Some modules stay in float32 (Wan's norms and tables); new blocks do as their siblings do."""
    expected, pipeline = load_aligned(grown, torch.bfloat16), load_aligned(tiny_pipeline, torch.bfloat16)
    load_growth(pipeline, growth_of(grown))
    dtypes = {name: tensor.dtype for name, tensor in pipeline.transformer.state_dict().items()}
    assert dtypes == {name: tensor.dtype for name, tensor in expected.transformer.state_dict().items()}
    assert set(dtypes.values()) == {torch.bfloat16, torch.float32}
    assert torch.equal(clip(pipeline), clip(expected))


@pytest.mark.parametrize("row", [WAN, COGVIDEOX], ids=lambda row: row.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_model_by_itself(tmp_path: Path, row: Any, dtype: torch.dtype) -> None:
    base = save(tmp_path / "base", row.class_name, row.tiny, dtype=dtype)
    first = grow(base, tmp_path / "first", mode="prefix", blocks=1)
    second = grow(first, tmp_path / "second", mode="suffix", blocks=2)
    train(second)
    pack(second, tmp_path / "growth")
    model = build(row.class_name, row.tiny, dtype=dtype)
    found = load_growth(model, tmp_path / "growth")
    assert found is not model
    expected = type(model).from_pretrained(second, torch_dtype=dtype)
    state = expected.state_dict()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, state[name].to(tensor.dtype)), name
    for a, b in zip(outputs(found, dtype), outputs(expected.to(dtype), dtype), strict=True):
        assert torch.equal(a, b)
    assert not any(torch.equal(a, b) for a, b in zip(outputs(found, dtype), outputs(model, dtype), strict=True))


def test_two_transformers(tiny_pipeline: Path, tmp_path: Path) -> None:
    """As in Wan 2.2: one for the noisy steps, one for the others, each with its own growth."""
    base = load_aligned(tiny_pipeline)
    base.register_modules(transformer_2=build("WanTransformer3DModel", dict(base.transformer.config), seed=5))
    base.register_to_config(boundary_ratio=0.5)
    base.save_pretrained(tmp_path / "base")
    folder = grow(tmp_path / "base", tmp_path / "grown", mode="suffix", blocks=1)
    train(folder / "transformer")
    train(folder / "transformer_2")
    pack(folder, tmp_path / "growth")
    pack(folder, tmp_path / "one", components=["transformer_2"])
    expected = clip(load_aligned(folder))
    pipeline = load_aligned(tmp_path / "base")
    assert not torch.equal(clip(pipeline), expected)
    load_growth(pipeline, tmp_path / "one")
    assert [pipeline.transformer.config.num_layers, pipeline.transformer_2.config.num_layers] == [2, 3]
    assert not torch.equal(clip(pipeline), expected)
    load_growth(pipeline, tmp_path / "growth", component="transformer")
    assert torch.equal(clip(pipeline), expected)
    model = load_growth(load_aligned(tmp_path / "base").transformer, tmp_path / "growth", component="transformer")
    assert torch.equal(model.proj_out.weight, pipeline.transformer.proj_out.weight)
    with pytest.raises(SourceError, match="holds transformer, transformer_2; say which with component="):
        load_growth(load_aligned(tmp_path / "base").transformer, tmp_path / "growth")
    alone = grow(tmp_path / "base" / "transformer_2", tmp_path / "alone", mode="suffix", blocks=1)
    pack(alone, tmp_path / "lone")
    with pytest.raises(SourceError, match="Say which with component="):
        load_growth(load_aligned(tmp_path / "base"), tmp_path / "lone")
    both = load_growth(load_aligned(tmp_path / "base"), tmp_path / "lone", component="transformer_2")
    assert [both.transformer.config.num_layers, both.transformer_2.config.num_layers] == [2, 3]


class TestRefused:
    def test_other_weights(self, tiny_pipeline: Path, grown: Path) -> None:
        pipeline = load_aligned(tiny_pipeline)
        with torch.no_grad():
            pipeline.transformer.proj_out.bias[0] += 1
        with pytest.raises(SourceError, match=r"transformer has other weights .* than tiny-wan"):
            load_growth(pipeline, growth_of(grown))
        assert pipeline.transformer.config.num_layers == 2

    def test_other_weights_in_another_dtype(self, tiny_pipeline: Path, grown: Path, tmp_path: Path) -> None:
        pipeline = load_aligned(tiny_pipeline, torch.bfloat16)
        other = build("WanTransformer3DModel", dict(pipeline.transformer.config) | {"num_layers": 2}, seed=9)
        other.save_pretrained(tmp_path / "other")
        pipeline.transformer = WanTransformer3DModel.from_pretrained(tmp_path / "other", torch_dtype=torch.bfloat16)
        with pytest.raises(SourceError, match="transformer has other weights"):
            load_growth(pipeline, growth_of(grown))

    def test_what_cannot_be_checked_is_said(
        self, tiny_pipeline: Path, grown: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        pipeline = load_aligned(tiny_pipeline, torch.bfloat16)
        pipeline.transformer.register_to_config(_name_or_path="somewhere/else")
        with caplog.at_level(logging.WARNING, logger="modelgrow"):
            load_growth(pipeline, growth_of(grown))
        assert "only names and shapes could be checked" in caplog.text
        assert pipeline.transformer.config.num_layers == 4

    @pytest.mark.parametrize(
        ("change", "message"), [({"num_layers": 3}, "another model"), ({"ffn_dim": 48}, "has the shape")]
    )
    def test_another_size(self, tiny_pipeline: Path, grown: Path, change: dict[str, int], message: str) -> None:
        pipeline = load_aligned(tiny_pipeline)
        pipeline.transformer = build("WanTransformer3DModel", dict(pipeline.transformer.config) | change)
        with pytest.raises(SourceError, match=message):
            load_growth(pipeline, growth_of(grown))

    def test_another_class(self, grown: Path) -> None:
        with pytest.raises(SourceError, match="was grown from tiny-wan, a WanTransformer3DModel"):
            load_growth(build("CogVideoXTransformer3DModel", COGVIDEOX.tiny), growth_of(grown))

    def test_twice(self, tiny_pipeline: Path, grown: Path) -> None:
        pipeline = load_growth(load_aligned(tiny_pipeline), growth_of(grown))
        with pytest.raises(SourceError, match="another model"):
            load_growth(pipeline, growth_of(grown))

    def test_hooks_lora_and_compilation(self, tiny_pipeline: Path, grown: Path) -> None:
        from diffusers.hooks import apply_layerwise_casting
        from peft import LoraConfig

        installs: list[tuple[Callable[[Any], Any], str]] = [
            (lambda m: m.add_adapter(LoraConfig(r=2, target_modules=["to_q"])), "carrying a LoRA"),
            (lambda m: apply_layerwise_casting(m, torch.float16, torch.float32), "cast layer by layer"),
            (lambda m: m.compile(backend="eager"), "compiled"),
            (lambda m: m.to("meta"), "without weights"),
        ]
        for install, message in installs:
            pipeline = load_aligned(tiny_pipeline)
            install(pipeline.transformer)
            with pytest.raises(CheckpointError, match=message):
                load_growth(pipeline, growth_of(grown))
        pipeline = load_aligned(tiny_pipeline)
        pipeline._all_hooks = [object()]
        with pytest.raises(CheckpointError, match="offloaded"):
            load_growth(pipeline, growth_of(grown))

    def test_no_such_file(self, tiny_pipeline: Path) -> None:
        pipeline = load_aligned(tiny_pipeline)
        with pytest.raises(SourceError, match="no such file"):
            load_growth(pipeline, "nowhere.safetensors")

    def test_from_the_hub(self, tiny_pipeline: Path, grown: Path, hub: Hub) -> None:
        hub.publish("someone/growth", growth_of(grown).parent)
        plain, pipeline = (load_aligned(tiny_pipeline) for _ in range(2))
        assert load_growth(pipeline, "someone/growth") is pipeline
        assert not torch.equal(clip(pipeline), clip(plain))
        hub.publish("someone/base", tiny_pipeline)
        with pytest.raises(SourceError, match=r"^someone/base: there is no growth\.safetensors in it; it holds"):
            load_growth(plain, "someone/base")
        with pytest.raises(SourceError, match=r"^someone/nothing: .* there is no such model, or it is private"):
            load_growth(plain, "someone/nothing")
