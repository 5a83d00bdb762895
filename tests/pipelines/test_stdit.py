"""Open-Sora's transformers as citizens of diffusers: how they load, what stays float32, what works with them."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import row_of
from diffusers import AutoModel, FirstBlockCacheConfig, PyramidAttentionBroadcastConfig
from growths import grow
from models import build, save
from peft import LoraConfig
from safetensors.torch import load_file
from stdit_cases import CLASSES, GOLDENS, class_of, inputs_of, load_case, publish, run

from modelgrow.pipelines import STDiT3Transformer3DModel, STDiTTransformer3DModel
from modelgrow.pipelines.models import align, load_model
from modelgrow.pipelines.probes import random_inputs
from modelgrow.surgery import CheckpointError, GenerateError, SourceError, open_checkpoint

CASES = ["stdit3/case_c", "stdit1/case_a"]
ROWS = {"stdit3": row_of("stdit3"), "stdit1": row_of("stdit")}
TABLES = {"stdit3": {"rope.freqs"}, "stdit1": {"pos_embed", "pos_embed_temporal"}}


def tiny(kind: str, **config: Any) -> Any:
    return build(ROWS[kind].class_name, {**ROWS[kind].tiny, **config})


def inputs_for(model: Any, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return random_inputs(type(model).__name__, model.config, seed=1, device=torch.device("cpu"), dtype=dtype)


@pytest.mark.parametrize(
    ("cls", "config", "parameters", "keys"),
    [
        (STDiT3Transformer3DModel, {}, 1_207_643_972, 973),
        (STDiT3Transformer3DModel, {"depth": 56}, 1_207_643_972 + 1_190_318_976, 1925),
        (STDiT3Transformer3DModel, {"hidden_size": 1872, "num_heads": 26}, 3_182_211_572, 973),
        (STDiTTransformer3DModel, {"input_size": (16, 32, 32)}, 759_620_768, 550),
        (STDiTTransformer3DModel, {"input_size": (16, 32, 32), "depth": 56}, 1_503_540_896, 1082),
    ],
)
def test_true_sizes(cls: Any, config: dict[str, Any], parameters: int, keys: int) -> None:
    with torch.device("meta"):
        model = cls(**config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == keys


@pytest.mark.parametrize("case", CASES)
def test_a_published_folder_and_ones_own(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, info = load_case(case, tmp_path / "published", output_loading_info=True)
    assert not any(info.values())
    inputs = inputs_of(case)
    expected = run(model, inputs)

    weights = load_file(GOLDENS / case / "weights.safetensors")
    assert model.state_dict().keys() == weights.keys()
    model.save_pretrained(tmp_path / "own")
    assert load_file(tmp_path / "own" / "diffusion_pytorch_model.safetensors").keys() == weights.keys()
    for name, again in {
        "own": AutoModel.from_pretrained(str(tmp_path / "own")),
        "resaved": save_and_load(AutoModel.from_pretrained(str(tmp_path / "own")), tmp_path / "resaved"),
        "any name": class_of(case).from_pretrained(renamed(tmp_path)),
    }.items():
        align(again)
        assert type(again) is type(model)
        assert torch.equal(run(again, inputs), expected), name
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def save_and_load(model: Any, folder: Path) -> Any:
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder)


def renamed(folder: Path) -> Path:
    shutil.copytree(folder / "published", folder / "renamed")
    (folder / "renamed" / "model.safetensors").rename(folder / "renamed" / "weights.safetensors")
    return folder / "renamed"


@pytest.mark.parametrize("mode", ["insert", "prefix", "suffix"])
@pytest.mark.parametrize("case", CASES)
def test_a_published_folder_grows(case: str, mode: str, tmp_path: Path) -> None:
    """Exact in three dtypes, with given frames and without, and it says whose class it is from then on."""
    base = publish(case, tmp_path / "published")
    folders = [grow(base, tmp_path / "grown", mode=mode), grow(base, tmp_path / "copied", mode=mode, init="copy")]
    config = json.loads((folders[0] / "config.json").read_text())
    depth = json.loads((base / "config.json").read_text())["depth"]
    assert config["depth"] == (2 * depth if mode == "insert" else depth + max(1, depth // 4))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        stock, grown, copied = (load_model(open_checkpoint(folder), dtype=dtype) for folder in (base, *folders))
        inputs = inputs_of(case)
        for given in (inputs.pop("frame_mask"), None):
            expected = run(stock, {**inputs, "frame_mask": given})
            assert expected.isfinite().all()
            assert torch.equal(run(grown, {**inputs, "frame_mask": given}), expected)
            assert not torch.equal(run(copied, {**inputs, "frame_mask": given}), expected)
    assert type(AutoModel.from_pretrained(str(folders[0]))) is class_of(case)


def test_frame_positions_stay_with_their_block(tmp_path: Path) -> None:
    base = save(tmp_path / "base", "STDiTTransformer3DModel", ROWS["stdit1"].tiny)
    once = grow(base, tmp_path / "once", mode="prefix", blocks=2)
    twice = grow(once, tmp_path / "twice", mode="insert", blocks=6)
    thrice = grow(twice, tmp_path / "thrice", mode="suffix", blocks=1)
    stock, grown = (load_model(open_checkpoint(folder), dtype=torch.float32) for folder in (base, thrice))
    # Two blocks before it, and after each of them a copy.
    assert grown.config.temporal_position_block == 4
    inputs = inputs_for(stock)
    assert torch.equal(run(grown, inputs), run(stock, inputs))
    grown.register_to_config(temporal_position_block=0)
    assert not torch.equal(run(grown, inputs), run(stock, inputs))


@pytest.mark.parametrize("kind", CLASSES)
def test_all_frames_denoised_is_no_mask(kind: str) -> None:
    model = tiny(kind)
    inputs = inputs_for(model)
    given = inputs.pop("frame_mask")
    expected = run(model, inputs)
    assert torch.equal(run(model, {**inputs, "frame_mask": torch.ones_like(given)}), expected)
    assert not torch.equal(run(model, {**inputs, "frame_mask": given}), expected)


@pytest.mark.parametrize("case", CASES)
def test_tables_stay_float32(case: str, tmp_path: Path) -> None:
    kind = case.partition("/")[0]
    exact = load_case(case, tmp_path / "exact")
    for model in (
        load_case(case, tmp_path / "loaded", torch_dtype=torch.bfloat16),
        load_case(case, tmp_path / "cast").to(torch.bfloat16),
        load_case(case, tmp_path / "halved").half(),
    ):
        state = model.state_dict()
        assert {name for name, tensor in state.items() if tensor.dtype == torch.float32} == TABLES[kind]
        assert all(torch.equal(state[name], exact.state_dict()[name]) for name in TABLES[kind])
        assert model.dtype in (torch.bfloat16, torch.float16)
        assert [name for name, p in model.named_parameters() if not p.requires_grad] == sorted(
            TABLES[kind] & dict(model.named_parameters()).keys()
        )
    # What is tiny in float32 is rounding; the reference would take 870.6 for 872 in bfloat16.
    inputs = {**inputs_of(case), "timestep": torch.tensor([870.6, 870.6])}
    rounded = {**inputs, "timestep": torch.tensor([872.0, 872.0])}
    model = load_case(case, tmp_path / "bf16", torch_dtype=torch.bfloat16)
    assert not torch.equal(run(model, inputs), run(model, rounded))
    assert run(model, inputs).dtype == torch.float32


@pytest.mark.parametrize("kind", CLASSES)
def test_gradients_are_the_same_with_checkpointing(kind: str) -> None:
    model = tiny(kind)
    inputs = inputs_for(model)
    gradients = []
    for enabled in (False, True):
        if enabled:
            model.enable_gradient_checkpointing()
        model.train().zero_grad()
        model(**inputs).sample.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    # Frequencies are no weights.
    assert {name for name, _ in model.named_parameters()} - gradients[0].keys() <= {"rope.freqs"}
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


@pytest.mark.parametrize("kind", CLASSES)
def test_what_diffusers_offers_works(kind: str) -> None:
    model = tiny(kind)
    inputs = inputs_for(model)
    expected = run(model, inputs)
    blocks = 4 if kind == "stdit1" else 8
    assert len(model.attn_processors) == (3 if kind == "stdit1" else 2) * blocks
    model.set_attention_backend("_native_math")
    assert all(processor._attention_backend is not None for processor in model.attn_processors.values())
    torch.testing.assert_close(run(model, inputs), expected)
    model.set_attention_backend("native")  # diffusers' default; it holds for the whole process
    assert torch.equal(run(model, inputs), expected)
    model.fuse_qkv_projections()
    assert torch.equal(run(model, inputs), expected)

    model.add_adapter(LoraConfig(r=2, target_modules=["qkv", "q_linear", "kv_linear"], init_lora_weights=False))
    with_lora = run(model, inputs)
    assert not torch.equal(with_lora, expected)
    torch.testing.assert_close(run(model, {**inputs, "attention_kwargs": {"scale": 0.0}}), expected)
    assert torch.equal(run(model, {**inputs, "attention_kwargs": {"scale": 1.0}}), with_lora)
    model.delete_adapters("default")
    assert torch.equal(run(model, inputs), expected)


BROADCAST = PyramidAttentionBroadcastConfig(
    spatial_attention_block_skip_range=2,
    spatial_attention_timestep_skip_range=(-1, 1001),
    cross_attention_block_skip_range=2,
    cross_attention_timestep_skip_range=(-1, 1001),
    current_timestep_callback=lambda: 500,
)
FIRST_BLOCK = FirstBlockCacheConfig(threshold=10.0)


@pytest.mark.parametrize(("kind", "cache"), [("stdit3", BROADCAST), ("stdit1", BROADCAST), ("stdit1", FIRST_BLOCK)])
def test_caches_work(kind: str, cache: Any) -> None:
    """The first step is computed, the second is not all of it, and then the cache can go."""
    model = tiny(kind)
    first = inputs_for(model)
    second = {**first, "hidden_states": first["hidden_states"] * 1.3}
    expected = [run(model, first), run(model, second)]
    model.enable_cache(cache)
    with model.cache_context("cond"):
        cached = [run(model, first), run(model, second)]
    model.disable_cache()
    assert torch.equal(cached[0], expected[0])
    assert not torch.equal(cached[1], expected[1])
    assert torch.equal(run(model, second), expected[1])


@pytest.mark.parametrize("kind", CLASSES)
def test_blocks_compile_without_a_break(kind: str) -> None:
    model = tiny(kind, depth=2)
    inputs = inputs_for(model)
    expected = run(model, inputs)
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    assert torch.equal(run(model, inputs), expected)


def test_what_does_not_fit_is_said() -> None:
    model, older = tiny("stdit3"), tiny("stdit1")
    inputs, others = inputs_for(model), inputs_for(older)
    with pytest.raises(GenerateError, match="needs fps, height and width"):
        model(**{**inputs, "fps": None})
    with pytest.raises(GenerateError, match=r"frame_mask is \[2, 2\]; expected \[2, 3\]"):
        model(**{**inputs, "frame_mask": inputs["frame_mask"][:, :2]})
    with pytest.raises(GenerateError, match="encoder_attention_mask has 3 rows for a batch of 2"):
        model(**{**inputs, "encoder_attention_mask": torch.ones(3, 8)})
    with pytest.raises(GenerateError, match=r"latents of \[2, 6, 8\].*are for \[3, 6, 8\]"):
        older(**{**others, "hidden_states": others["hidden_states"][:, :, :2]})


def test_folders_that_can_t_be_read(tmp_path: Path) -> None:
    folder = publish("stdit3/case_c", tmp_path / "published")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "skip_y_embedder": True}))
    with pytest.raises(CheckpointError, match="skip_y_embedder"):
        STDiT3Transformer3DModel.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    with pytest.raises(SourceError, match="can't tell which"):
        STDiT3Transformer3DModel.from_pretrained(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(SourceError, match="speaks of several files"):
        STDiT3Transformer3DModel.from_pretrained(folder)
