"""LoRAs in DiffSynth's names, as ExVideo has for CogVideoX and Wan: loaded where they belong, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from growths import grow as grow_blocks
from safetensors.torch import load_file, save_file
from tiny_families import FAMILIES, build_pipeline
from tiny_pipelines import load_aligned, save_tiny_wan

from modelgrow.pipelines import load_lora
from modelgrow.pipelines.probes import random_inputs, run_model
from modelgrow.surgery import CheckpointError, SourceError, open_source
from modelgrow.surgery.diffsynth_lora import LAYERS, diffusers_names, is_diffsynth_lora
from modelgrow.surgery.lora import classes_of, grown_models, prepare_remap

Grow = Callable[..., tuple[int, str, str]]
COGVIDEOX, WAN = "CogVideoXTransformer3DModel", "WanTransformer3DModel"
RANK = 3


def save_pipeline(kind: str, folder: Path) -> Path:
    return save_tiny_wan(folder) if kind == WAN else build_pipeline(FAMILIES["cogvideox-rope"], folder)


def random_lora(model: Any, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """For every linear layer of every block: A and B in DiffSynth's names, and B A by diffusers' names."""
    stack, layers = LAYERS[kind]
    generator = torch.Generator().manual_seed(5)
    lora: dict[str, torch.Tensor] = {}
    product: dict[str, torch.Tensor] = {}
    for number in range(len(getattr(model, stack))):
        for theirs, ours in layers.items():
            weight = model.get_parameter(f"{stack}.{number}.{ours}.weight")
            a = torch.randn(RANK, weight.shape[1], generator=generator) * 0.2
            b = torch.randn(weight.shape[0], RANK, generator=generator) * 0.2
            lora |= {f"blocks.{number}.{theirs}.lora_A.default.weight": a}
            lora |= {f"blocks.{number}.{theirs}.lora_B.default.weight": b}
            product[f"{stack}.{number}.{ours}.weight"] = b @ a
    return lora, product


def answer(model: Any, kind: str) -> torch.Tensor:
    inputs = random_inputs(kind, model.config, seed=0, device=torch.device("cpu"), dtype=torch.float32)
    return run_model(model, inputs)[0]


@pytest.fixture(params=[COGVIDEOX, WAN])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def merged(folder: Path, kind: str, tmp_path: Path) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """The LoRA's file, the base's answer, and its answer with B A added to its weights, as the reference does it."""
    model = load_aligned(folder).transformer
    lora, product = random_lora(model, kind)
    save_file(lora, tmp_path / "exvideo.safetensors")
    plain = answer(model, kind)
    with torch.no_grad():
        for name, value in product.items():
            model.get_parameter(name).add_(value)
    return tmp_path / "exvideo.safetensors", plain, answer(model, kind)


def test_loaded_as_the_reference_merges_it(kind: str, tmp_path: Path) -> None:
    folder = save_pipeline(kind, tmp_path / "base")
    path, plain, expected = merged(folder, kind, tmp_path)
    assert (plain - expected).abs().max() > 1e-2
    pipeline = load_aligned(folder)
    load_lora(pipeline, path)
    torch.testing.assert_close(answer(pipeline.transformer, kind), expected, rtol=1e-3, atol=1e-4)
    from_memory = load_aligned(folder)
    load_lora(from_memory, load_file(path))
    assert torch.equal(answer(from_memory.transformer, kind), answer(pipeline.transformer, kind))


def test_loaded_into_a_grown_pipeline(kind: str, tmp_path: Path) -> None:
    """New blocks are silent, so the grown model with the LoRA answers as the base with it."""
    folder = save_pipeline(kind, tmp_path / "base")
    path, _, _ = merged(folder, kind, tmp_path)
    base, grown = load_aligned(folder), load_aligned(grow_blocks(folder, tmp_path / "grown", mode="prefix", blocks=1))
    load_lora(base, path)
    load_lora(grown, path)
    assert torch.equal(answer(base.transformer, kind), answer(grown.transformer, kind))


def test_command_writes_what_diffusers_loads(kind: str, grow: Grow, tmp_path: Path) -> None:
    folder = save_pipeline(kind, tmp_path / "base")
    path, _, expected = merged(folder, kind, tmp_path)
    code, out, _ = grow("remap-lora", str(path), "--model", str(folder), "-o", "lora.safetensors", "--json")
    assert code == 0
    assert len(json.loads(out)["moved"]) == len(load_file(path))
    pipeline = load_aligned(folder)
    pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors")
    torch.testing.assert_close(answer(pipeline.transformer, kind), expected, rtol=1e-3, atol=1e-4)


def test_keys_by_hand() -> None:
    keys = ["blocks.41.attn1.to_out.lora_A.default.weight", "blocks.0.ff.0.lora_B.weight"]
    assert is_diffsynth_lora(keys)
    found = diffusers_names(keys, {"vae": "X", "transformer": COGVIDEOX}, where="x")
    assert list(found.values()) == [
        "transformer.transformer_blocks.41.attn1.to_out.0.lora_A.weight",
        "transformer.transformer_blocks.0.ff.net.0.proj.lora_B.weight",
    ]
    alone = diffusers_names(["blocks.3.cross_attn.o.lora_A.weight"], {"": WAN}, where="x")
    assert list(alone.values()) == ["blocks.3.attn2.to_out.0.lora_A.weight"]
    for other in (
        ["transformer.blocks.0.attn1.to_q.lora_A.weight"],
        ["blocks.0.attn1.to_q.lora_A.weight", "text_encoder.x"],
        ["blocks.0.attn1.to_q.alpha"],
        [],
    ):
        assert not is_diffsynth_lora(other)


def test_another_model_s_lora_is_refused(tmp_path: Path) -> None:
    folder = save_pipeline(WAN, tmp_path / "wan")
    keys = {"blocks.0.attn1.to_out.lora_A.default.weight": torch.zeros(2, 4)}
    save_file(keys, tmp_path / "cogvideox.safetensors")
    with pytest.raises(CheckpointError, match=r"is of no layer of WanTransformer3DModel.*blocks\.N\.self_attn\.q"):
        load_lora(load_aligned(folder), tmp_path / "cogvideox.safetensors")
    source = open_source(str(folder))
    with pytest.raises(CheckpointError, match="of no layer of WanTransformer3DModel"):
        prepare_remap(tmp_path / "cogvideox.safetensors", {}, classes=classes_of(source))
    with pytest.raises(CheckpointError, match="which are known for CogVideoXTransformer3DModel, WanTransformer3DModel"):
        diffusers_names(keys, {"transformer": "LTXVideoTransformer3DModel"}, where="x")
    with pytest.raises(SourceError, match=r"no growth\.json"):
        grown_models(source)


def test_a_lora_that_reaches_no_layer_is_an_error(tmp_path: Path) -> None:
    """diffusers says it in its log, and goes on."""
    pipeline = load_aligned(grow_blocks(save_pipeline(WAN, tmp_path / "wan"), tmp_path / "grown", mode="prefix"))
    keys = {f"elsewhere.0.to_q.lora_{half}.weight": torch.zeros(2, 2) for half in "AB"}
    with pytest.raises(CheckpointError, match=r"none of its 2 keys, such as .*elsewhere.*nothing was loaded"):
        load_lora(pipeline, keys)
