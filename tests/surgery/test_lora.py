"""Keys of LoRAs, in every way they are written, follow the blocks; what names no block stays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelgrow.surgery import Anatomy, CheckpointError, OutputError, Record, anatomies
from modelgrow.surgery.header import read_header, write_header
from modelgrow.surgery.lora import prepare_remap, remap_value, write_remapped
from modelgrow.surgery.lora_keys import LoraTarget, remap_for, remap_keys
from modelgrow.surgery.readback import read_chunks
from modelgrow.surgery.record import Base
from modelgrow.surgery.step import Step


def step(index_map: Mapping[str, tuple[int, ...]]) -> Step:
    return Step(
        operation="expand",
        options={},
        index_map=index_map,
        copied_from={},
        new=(),
        zeroed=(),
        input_fingerprint="",
        made_with="",
    )


def record(*maps: Mapping[str, tuple[int, ...]]) -> Record:
    return Record(base=Base(class_name="X", name="the-base", fingerprint=""), steps=tuple(map(step, maps)))


INSERT = record({"blocks": (0, 2, 4, 6)})
UNET = "down_blocks.0.attentions.1.transformer_blocks"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("transformer.blocks.3.attn1.to_q.lora_A.weight", "transformer.blocks.6.attn1.to_q.lora_A.weight"),
        ("transformer.blocks.0.attn1.to_q.lora_B.weight", "transformer.blocks.0.attn1.to_q.lora_B.weight"),
        ("blocks.2.ffn.net.2.lora_magnitude_vector", "blocks.4.ffn.net.2.lora_magnitude_vector"),
        ("base_model.model.blocks.1.attn2.to_k.lora_A.default.weight",) * 2,
        ("base_model.model.transformer.blocks.1.x", "base_model.model.transformer.blocks.2.x"),
        ("diffusion_model.blocks.3.self_attn.q.alpha", "diffusion_model.blocks.6.self_attn.q.alpha"),
        ("model.diffusion_model.blocks.3.cross_attn.o.diff_b", "model.diffusion_model.blocks.6.cross_attn.o.diff_b"),
        ("lora_unet_blocks_3_attn1_to_q.lora_down.weight", "lora_unet_blocks_6_attn1_to_q.lora_down.weight"),
        ("lora_transformer_blocks_1_ffn_net_0_proj.alpha", "lora_transformer_blocks_2_ffn_net_0_proj.alpha"),
        ("lycoris_blocks_2_attn1_to_out_0.lokr_w1", "lycoris_blocks_4_attn1_to_out_0.lokr_w1"),
        ("transformer.proj_out.lora_A.weight",) * 2,
        ("transformer.condition_embedder.blocks.3.linear.lora_A.weight",) * 2,
        ("transformer.vace_blocks.1.attn1.to_q.lora_A.weight",) * 2,
        ("text_encoder.blocks.9.q.lora_A.weight",) * 2,
        ("lora_te1_blocks_3_q.lora_down.weight",) * 2,
        ("lora_unet_vace_blocks_1_attn1_to_q.alpha",) * 2,
        ("transformer.blocks.x.attn1",) * 2,
    ],
)
def test_every_way_to_write_a_key(key: str, expected: str) -> None:
    if key.startswith("base_model.model.blocks.1"):
        expected = expected.replace("blocks.1", "blocks.2")
    assert remap_keys([key], INSERT) == {key: expected}


def test_names_of_the_original_layout() -> None:
    anatomy: Anatomy = replace(
        anatomies()["CogVideoXTransformer3DModel"],
        lora_aliases={"double_blocks": "transformer_blocks", "transformer.layers": "transformer_blocks"},
    )
    grown = record({"transformer_blocks": (1, 2)})
    keys = {
        "diffusion_model.double_blocks.1.img_attn.qkv.lora_A.weight": (
            "diffusion_model.double_blocks.2.img_attn.qkv.lora_A.weight"
        ),
        "model.diffusion_model.transformer.layers.0.q.alpha": "model.diffusion_model.transformer.layers.1.q.alpha",
        "lora_unet_double_blocks_0_img_attn_proj.alpha": "lora_unet_double_blocks_1_img_attn_proj.alpha",
        "lora_transformer_blocks_0_x.alpha": "lora_transformer_blocks_1_x.alpha",
        "transformer.transformer_blocks.1.ff.net.2.lora_A.weight": (
            "transformer.transformer_blocks.2.ff.net.2.lora_A.weight"
        ),
        "transformer.single_transformer_blocks.1.proj_out.lora_A.weight": (
            "transformer.single_transformer_blocks.1.proj_out.lora_A.weight"
        ),
    }
    assert remap_keys(keys, grown, anatomy) == keys


def test_stacks_inside_stacks_and_several_steps() -> None:
    grown = record({UNET: (0, 2)}, {"down_blocks.0.attentions": (1, 3)}, {UNET.replace(".1.", ".3."): (1, 2, 3, 4)})
    assert remap_keys(
        [
            f"unet.{UNET}.1.attn1.to_q.lora_A.weight",
            "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight",
            f"lora_unet_{UNET.replace('.', '_')}_0_ff_net_2.alpha",
        ],
        grown,
    ) == {
        f"unet.{UNET}.1.attn1.to_q.lora_A.weight": (
            "unet.down_blocks.0.attentions.3.transformer_blocks.3.attn1.to_q.lora_A.weight"
        ),
        "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": (
            "unet.down_blocks.0.attentions.1.proj_in.lora_A.weight"
        ),
        f"lora_unet_{UNET.replace('.', '_')}_0_ff_net_2.alpha": (
            "lora_unet_down_blocks_0_attentions_3_transformer_blocks_1_ff_net_2.alpha"
        ),
    }


@pytest.mark.parametrize(
    "key",
    [
        "transformer.blocks.4.attn1.to_q.lora_A.weight",
        "diffusion_model.blocks.30.self_attn.q.lora_A.weight",
        "lora_unet_blocks_7_attn1_to_q.alpha",
    ],
)
def test_a_lora_of_another_model(key: str) -> None:
    with pytest.raises(CheckpointError, match="blocks of the-base has 4; the LoRA was trained on another model"):
        remap_keys([key], INSERT)


def test_an_unknown_head_is_not_passed_in_silence() -> None:
    with pytest.raises(CheckpointError, match="'wonder' before 'blocks' is unknown"):
        remap_keys(["wonder.blocks.1.attn1.to_q.lora_A.weight"], INSERT)


def test_two_components() -> None:
    models = {
        "transformer": LoraTarget(record=INSERT),
        "transformer_2": LoraTarget(record=record({"blocks": (1, 2, 3, 4)})),
    }
    keys = ["transformer.blocks.1.q", "transformer_2.blocks.1.q", "transformer.head.q"]
    assert list(remap_for(keys, models).values()) == ["transformer.blocks.2.q", "transformer_2.blocks.2.q", keys[2]]
    with pytest.raises(CheckpointError, match="does not say which of transformer, transformer_2"):
        remap_for(["diffusion_model.blocks.3.q"], models)
    one = {"transformer_2": models["transformer_2"]}
    assert remap_for([*keys, "lora_unet_blocks_0_q.alpha"], one) == {
        "transformer.blocks.1.q": "transformer.blocks.1.q",
        "transformer_2.blocks.1.q": "transformer_2.blocks.2.q",
        "transformer.head.q": "transformer.head.q",
        "lora_unet_blocks_0_q.alpha": "lora_unet_blocks_1_q.alpha",
    }


def test_settings() -> None:
    settings: dict[str, Any] = {
        "transformer.r": 4,
        "transformer.rank_pattern": {"blocks.3.attn1.to_q": 8, "proj_out": 2},
        "transformer.target_modules": ["blocks.1.attn1.to_k", "to_v", "blocks.99.attn1.to_k"],
        "transformer.layers_to_transform": [0, 3],
        "transformer.modules_to_save": ["blocks.0.norm", "head"],
        "text_encoder.target_modules": ["q"],
    }
    keys = ["transformer.blocks.2.attn1.to_k.lora_A.weight", "transformer.blocks.2.attn1.to_k.lora_B.weight"]
    keys += ["transformer.blocks.6.to_v.lora_A.weight", "text_encoder.q.lora_A.weight", "transformer.other.alpha"]
    assert remap_value(settings, {"transformer": LoraTarget(record=INSERT)}, keys) == {
        "transformer.r": 4,
        "transformer.rank_pattern": {"blocks.6.attn1.to_q": 8, "proj_out": 2},
        "transformer.target_modules": ["blocks.2.attn1.to_k", "blocks.6.to_v"],
        "transformer.layers_to_transform": [0, 6],
        "transformer.modules_to_save": ["blocks.0.norm", "head"],
        "text_encoder.target_modules": ["q"],
    }
    two = {"": LoraTarget(record=record({"a": (1, 2), "b": (0, 1)}))}
    with pytest.raises(CheckpointError, match="does not say which stack's blocks it means"):
        remap_value({"layers_to_transform": [0]}, two, [])


class TestFile:
    @pytest.fixture
    def lora(self, tmp_path: Path) -> Path:
        keys = ["transformer.blocks.3.q.lora_A.weight", "transformer.blocks.1.q.lora_B.weight", "transformer.out.alpha"]
        metadata = {
            "format": "pt",
            "lora_adapter_metadata": '{"transformer.rank_pattern": {"blocks.3.q": 8}}',
            "note": "blocks.3 is mine",
            "list": "[1, 2]",
        }
        header = write_header({key: ("F32", (1,), 4) for key in keys}, metadata)
        (tmp_path / "lora.safetensors").write_bytes(header + b"aaaabbbbcccc")
        return tmp_path / "lora.safetensors"

    def test_keys_move_and_bytes_stay(self, lora: Path, tmp_path: Path) -> None:
        remapping = prepare_remap(lora, {"transformer": LoraTarget(record=INSERT)})
        assert len(remapping.moved) == 2
        before = lora.read_bytes()
        header = read_header(write_remapped(remapping, tmp_path / "out" / "moved.safetensors"))
        assert {name: b"".join(read_chunks(tensor)) for name, tensor in header.tensors.items()} == {
            "transformer.blocks.6.q.lora_A.weight": b"aaaa",
            "transformer.blocks.2.q.lora_B.weight": b"bbbb",
            "transformer.out.alpha": b"cccc",
        }
        assert json.loads(header.metadata["lora_adapter_metadata"]) == {"transformer.rank_pattern": {"blocks.6.q": 8}}
        assert {key: header.metadata[key] for key in ("format", "note", "list")} == {
            "format": "pt",
            "note": "blocks.3 is mine",
            "list": "[1, 2]",
        }
        assert lora.read_bytes() == before
        with pytest.raises(OutputError, match="exists already"):
            write_remapped(remapping, tmp_path / "out" / "moved.safetensors")
        with pytest.raises(OutputError, match="never written to"):
            write_remapped(remapping, lora, overwrite=True)

    @pytest.mark.parametrize("names", [[], ["blocks.0.attn1.to_q.weight", "diffusion_model.proj.weight"]])
    def test_no_lora(self, tmp_path: Path, names: list[str]) -> None:
        """A model's own weights, named by mistake, would pass with nothing moved."""
        path = tmp_path / "model.safetensors"
        path.write_bytes(write_header({name: ("F32", (1,), 4) for name in names}, {}) + bytes(4 * len(names)))
        with pytest.raises(CheckpointError, match="no LoRA: it holds"):
            prepare_remap(path, {"": LoraTarget(record=INSERT)})

    def test_no_safetensors(self, tmp_path: Path) -> None:
        (tmp_path / "lora.pt").write_bytes(b"\x80\x02}q\x00.")
        with pytest.raises(CheckpointError, match=r"lora\.pt"):
            prepare_remap(tmp_path / "lora.pt", {"": LoraTarget(record=INSERT)})
