"""A LoRA of the base on the grown model: the same change of the same outputs, to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES
from attached import attach, inputs_of, without_llm
from growths import grow, pack
from huggingface_hub.errors import LocalEntryNotFoundError
from models import save
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny_pipelines import load_aligned, tiny_clip

from modelgrow.pipelines import load_growth, load_lora
from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.probes import random_inputs, run_model
from modelgrow.surgery import CheckpointError, anatomies, open_checkpoint, open_source
from modelgrow.surgery.lora import grown_models, prepare_remap, write_remapped
from modelgrow.surgery.lora_keys import remap_keys

NAME = "pytorch_lora_weights.safetensors"


TARGETS = ("attn1.to_q", "attn1.to_v", "attn2.to_q", "attn2.to_v", "ffn.net.2")
"""Of every block, what ["to_q", "to_v", "ffn.net.2"] means in Wan."""


def clip(pipeline: Any) -> torch.Tensor:
    return tiny_clip(pipeline, "a blue square moves left")


@pytest.fixture(scope="module")
def grown(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grow(tiny_pipeline, tmp_path_factory.mktemp("lora") / "grown")


@pytest.fixture(scope="module")
def lora(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA as diffusers writes it: its settings say alpha 6, and another rank for one module."""
    pipeline = load_aligned(tiny_pipeline)
    config = LoraConfig(
        r=2,
        lora_alpha=6,
        target_modules=["to_q", "to_v", "ffn.net.2"],
        rank_pattern={"blocks.1.attn1.to_q": 3},
    )
    pipeline.transformer.add_adapter(config)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in pipeline.transformer.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    folder = tmp_path_factory.mktemp("adapter")
    type(pipeline).save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(pipeline.transformer),
        transformer_lora_adapter_metadata=pipeline.transformer.peft_config["default"].to_dict(),
    )
    return folder / NAME


@pytest.fixture(scope="module")
def expected(tiny_pipeline: Path, lora: Path) -> torch.Tensor:
    pipeline = load_aligned(tiny_pipeline)
    plain = clip(pipeline)
    pipeline.load_lora_weights(str(lora.parent), weight_name=NAME)
    with_lora = clip(pipeline)
    assert not torch.equal(plain, with_lora)
    return with_lora


def test_remapped_file(grown: Path, lora: Path, expected: torch.Tensor, tmp_path: Path) -> None:
    remapping = prepare_remap(lora, grown_models(open_source(str(grown))))
    write_remapped(remapping, tmp_path / NAME)
    pipeline = load_aligned(grown)
    pipeline.load_lora_weights(str(tmp_path), weight_name=NAME)
    assert torch.equal(clip(pipeline), expected)


@pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters:RuntimeWarning")  # rightly: see below
def test_as_it_is_it_reaches_the_wrong_blocks(grown: Path, lora: Path, expected: torch.Tensor) -> None:
    pipeline = load_aligned(grown)
    pipeline.load_lora_weights(str(lora.parent), weight_name=NAME)
    assert not torch.equal(clip(pipeline), expected)


def test_load_lora(grown: Path, lora: Path, expected: torch.Tensor) -> None:
    for source in (lora, str(lora.parent)):
        pipeline = load_aligned(grown)
        load_lora(pipeline, source, weight_name=NAME, adapter_name="mine")
        assert pipeline.get_list_adapters() == {"transformer": ["mine"]}
        assert torch.equal(clip(pipeline), expected)


def test_load_lora_after_load_growth(
    tiny_pipeline: Path, grown: Path, lora: Path, expected: torch.Tensor, tmp_path: Path
) -> None:
    pack(grown, tmp_path / "growth")
    pipeline = load_growth(load_aligned(tiny_pipeline), tmp_path / "growth")
    load_lora(pipeline, lora, weight_name=NAME)
    assert torch.equal(clip(pipeline), expected)


def test_original_layout(tiny_pipeline: Path, grown: Path, lora: Path, tmp_path: Path) -> None:
    """diffusers converts such files itself; blocks move after that."""
    inner = {"attn1": "self_attn", "attn2": "cross_attn", "to_q": "q", "to_v": "v", "ffn.net.2": "ffn.2"}
    original = {}
    for key, tensor in load_file(lora).items():
        name = key.replace("transformer.", "diffusion_model.", 1)
        for new, old in inner.items():
            name = name.replace(new, old)
        original[name] = tensor
    save_file(original, tmp_path / "original.safetensors")
    base, deep = load_aligned(tiny_pipeline), load_aligned(grown)
    base.load_lora_weights(str(tmp_path), weight_name="original.safetensors")
    load_lora(deep, tmp_path / "original.safetensors")
    found = clip(deep)
    assert torch.equal(found, clip(base))
    assert not torch.equal(found, clip(load_aligned(grown)))


def test_a_state_dict(grown: Path, lora: Path, tiny_pipeline: Path) -> None:
    """Without settings alpha is the rank."""
    base, deep = load_aligned(tiny_pipeline), load_aligned(grown)
    base.load_lora_weights(load_file(lora))
    load_lora(deep, load_file(lora))
    assert torch.equal(clip(deep), clip(base))


@pytest.mark.parametrize("mode", ["insert", "prefix"])
def test_cogvideox(tmp_path: Path, mode: str) -> None:
    """On the model alone, and keys moved by the library: base with LoRA, and grown with the moved one."""
    row = next(row for row in ARCHITECTURES if row.class_name == "CogVideoXTransformer3DModel")
    base = load_model(open_checkpoint(save(tmp_path / "base", row.class_name, row.tiny)), dtype=torch.float32)
    checkpoint = open_checkpoint(grow(tmp_path / "base", tmp_path / "grown", mode=mode))
    moved, unmoved = (load_model(checkpoint, dtype=torch.float32) for _ in range(2))
    generator = torch.Generator().manual_seed(2)
    state = {
        f"transformer.transformer_blocks.{i}.attn1.{name}.lora_{kind}.weight": torch.randn(shape, generator=generator)
        for i in range(base.config.num_layers)
        for name in ("to_q", "to_out.0")
        for kind, shape in (
            ("A", (2, base.transformer_blocks[0].attn1.to_q.in_features)),
            ("B", (base.transformer_blocks[0].attn1.to_q.out_features, 2)),
        )
    }
    assert checkpoint.record is not None
    names = remap_keys(state, checkpoint.record, anatomies()[row.class_name])
    plain = outputs(base)
    base.load_lora_adapter(dict(state))
    moved.load_lora_adapter({names[key]: tensor for key, tensor in state.items()})
    unmoved.load_lora_adapter(dict(state))
    assert torch.equal(outputs(moved), outputs(base))
    assert not torch.equal(outputs(unmoved), outputs(base))
    assert not torch.equal(plain, outputs(base))


def outputs(model: Any) -> torch.Tensor:
    inputs = random_inputs(type(model).__name__, model.config, seed=1, device=torch.device("cpu"), dtype=torch.float32)
    return run_model(model, inputs)[0]


def test_what_has_not_grown(tiny_pipeline: Path, lora: Path) -> None:
    with pytest.raises(CheckpointError, match="no component is known to have grown"):
        load_lora(load_aligned(tiny_pipeline), lora)


def test_a_grown_pipeline_from_the_hub(
    tiny_pipeline: Path,
    grown: Path,
    lora: Path,
    expected: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """diffusers leaves growth.json on the Hub; it is fetched when a LoRA needs it."""
    folder = tmp_path / "models--someone--grown" / "snapshots" / "abc123"
    shutil.copytree(grown, folder)
    (folder / "transformer" / "growth.json").unlink()
    asked = []

    def download(repo_id: str, name: str, *, revision: str) -> str:
        asked.append((repo_id, name, revision))
        if not name.startswith("transformer/"):
            raise LocalEntryNotFoundError(name)
        return str(grown / name)

    pipeline = load_aligned(folder)
    with pytest.raises(CheckpointError, match="no component is known to have grown"):
        load_lora(pipeline, lora)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    load_lora(pipeline, lora)
    assert ("someone/grown", "transformer/growth.json", "abc123") in asked
    assert torch.equal(clip(pipeline), expected)


def test_a_lora_that_is_not_there(grown: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="can't be read"):
        load_lora(load_aligned(grown), tmp_path / "nothing.safetensors")


def test_settings_of_the_remapped_file(grown: Path, lora: Path) -> None:
    from modelgrow.surgery.header import read_header

    before = json.loads(read_header(lora).metadata["lora_adapter_metadata"])
    remapping = prepare_remap(lora, grown_models(open_source(str(grown))))
    text = remapping.file.header[8:].decode()
    after = json.loads(json.loads(text)["__metadata__"]["lora_adapter_metadata"])
    assert before["transformer.rank_pattern"] == {"blocks.1.attn1.to_q": 3}
    modules = sorted(f"blocks.{i}.{name}" for i in (0, 2) for name in TARGETS)
    assert after == before | {
        "transformer.rank_pattern": {"blocks.2.attn1.to_q": 3},
        "transformer.target_modules": modules,
    }


def test_on_a_model_with_a_slot(tiny_pipeline: Path, lora: Path, tmp_path: Path) -> None:
    """Its modules are called to_q and to_v too, and a LoRA that was made before is not for them."""
    base, slot = load_aligned(tiny_pipeline), load_aligned(attach(tiny_pipeline, tmp_path / "slot"))
    inputs = inputs_of(slot.transformer)
    (plain,) = run_model(base.transformer, without_llm(inputs))
    base.load_lora_weights(str(lora.parent), weight_name=NAME)
    load_lora(slot, lora, weight_name=NAME)
    names = [name for name, _ in slot.transformer.named_parameters() if "lora_" in name]
    assert names
    assert not any("llm_" in name for name in names)
    (expected,) = run_model(base.transformer, without_llm(inputs))
    (found,) = run_model(slot.transformer, inputs)
    assert torch.equal(found, expected)
    assert not torch.equal(plain, expected)
