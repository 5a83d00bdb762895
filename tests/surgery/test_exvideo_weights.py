"""ExVideo's weights in DiffSynth's names: recognised, put in place, given back, and refused where they don't fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exvideo_cases import GOLDENS, apply_weights, base_of, extend, extension_of, save_pipeline
from safetensors.numpy import load_file, save_file

from modelgrow.surgery import (
    CheckpointError,
    OutputError,
    PlanError,
    SourceError,
    execute,
    open_checkpoint,
    open_source,
)
from modelgrow.surgery.diffsynth import NAMES, block_numbers, is_extension, our_names
from modelgrow.surgery.exvideo_weights import is_exvideo, prepare_export, prepare_weights, write_export
from modelgrow.surgery.pack import prepare_pack
from modelgrow.surgery.shrink import prepare_shrink

Grow = Callable[..., tuple[int, str, str]]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return save_pipeline("case_b", tmp_path / "svd")


class TestNames:
    def test_the_published_file_s_map(self) -> None:
        """All 528 keys of the published layout, as the reference's own converter maps them."""
        base = json.loads((GOLDENS / "svd_full" / "base.json").read_text())
        extension = json.loads((GOLDENS / "svd_full" / "extension.json").read_text())
        assert is_extension(extension)
        numbers = block_numbers(base["base_names"], where="SVD-XT")
        assert numbers == {
            int(number): path.removesuffix(".temporal_transformer_blocks")
            for number, path in base["temporal_attention_blocks"].items()
        }
        names = our_names(extension, base["base_names"], where="exvideo", base="SVD-XT")
        assert len(names) == len(set(names.values())) == 528 == 16 * len(NAMES)
        new = {key for key, (_, name) in extension.items() if name is None}
        assert all(names[key] == name for key, (_, name) in extension.items() if name is not None)
        assert {names[key].split(".attentions.")[1][2:] for key in new} == {
            "position_table.weight",
            "temporal_conv.weight",
            "temporal_conv.bias",
        }

    def test_another_shape_of_unet(self) -> None:
        names = ["mid_block.resnets.0.x", "mid_block.resnets.1.x", "mid_block.attentions.0.x"]
        names += ["down_blocks.0.resnets.0.x", "up_blocks.0.resnets.0.x", "up_blocks.0.attentions.0.x"]
        # A resnet (0-3) and its skip (4); in the middle a resnet (5-8), an attention (9-13), a resnet (14-17);
        # a pop (18), a resnet (19-22) and an attention (23-27).
        assert block_numbers(names, where="") == {12: "mid_block.attentions.0", 26: "up_blocks.0.attentions.0"}

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("blocks.8.positional_embedding.embeddings", "has its temporal blocks at 7, 24, 49, 59"),
            ("blocks.7.mix_factor", "no tensor of ExVideo's temporal blocks"),
            ("conv_in.weight", "no tensor of ExVideo's temporal blocks"),
        ],
    )
    def test_keys_of_something_else(self, key: str, message: str) -> None:
        base = open_checkpoint(base_of("case_a"))
        with pytest.raises(CheckpointError, match=message):
            our_names([key], base.tensors, where="file", base="base")

    def test_several_temporal_blocks_in_one_attention(self) -> None:
        with pytest.raises(CheckpointError, match="one temporal block in each attention"):
            block_numbers(["mid_block.attentions.0.temporal_transformer_blocks.1.norm_in.weight"], where="")


@pytest.mark.parametrize(("case", "frames", "changed"), [("case_a", 32, 120), ("case_b", 40, 0)])
def test_applied(case: str, frames: int, changed: int, tmp_path: Path) -> None:
    grown = open_checkpoint(apply_weights(case, tmp_path / "grown"))
    assert grown.config["num_position_frames"] == frames
    assert grown.record is not None
    step = grown.record.steps[0]
    assert step.options == {"to": frames, "weights": "extension.diffsynth.safetensors"}
    assert (len(step.new), len(step.changed)) == (12, changed)

    held = load_file(tmp_path / "grown" / WEIGHTS)
    base = load_file(base_of(case) / WEIGHTS)
    given = load_file(extension_of(case))
    names = our_names(given, base, where=case, base=case)
    assert all((held[names[key]] == value).all() for key, value in given.items())
    rest = base.keys() - set(names.values())
    assert rest
    assert all((held[name] == base[name]).all() for name in rest)
    assert len(held) == len(base) + 12


def test_stored_in_half(tmp_path: Path) -> None:
    """Every tensor keeps the dtype in which it was published."""
    given = {key: value.astype("float16") for key, value in load_file(extension_of("case_b")).items()}
    save_file(given, tmp_path / "half.safetensors")
    execute(prepare_weights(tmp_path / "half.safetensors", open_source(str(base_of("case_b")))), tmp_path / "grown")
    held = load_file(tmp_path / "grown" / WEIGHTS)
    assert held["mid_block.attentions.0.temporal_conv.weight"].dtype == np.float16
    assert held["conv_in.weight"].dtype == np.float32


@pytest.mark.parametrize("case", ["case_a", "case_b"])
def test_there_and_back(case: str, tmp_path: Path) -> None:
    export = prepare_export(open_source(str(apply_weights(case, tmp_path / "grown"))))
    write_export(export, tmp_path / "back.safetensors")
    back, given = load_file(tmp_path / "back.safetensors"), load_file(extension_of(case))
    assert all((back[key] == value).all() for key, value in given.items())
    assert back.keys() == {
        f"blocks.{number}.{name}" for number in (key.split(".")[1] for key in given) for name in NAMES
    }
    assert is_exvideo(tmp_path / "back.safetensors")


def test_what_was_replaced_can_t_come_back_from_it_alone(tmp_path: Path) -> None:
    apply_weights("case_a", tmp_path / "grown")
    grown = open_source(str(tmp_path / "grown"))
    with pytest.raises(PlanError, match="kept no way to make the old one again"):
        prepare_shrink(grown)
    with pytest.raises(PlanError, match="Say --base"):
        prepare_pack(grown)
    packing = prepare_pack(grown, base=open_source(str(base_of("case_a"))))
    assert len(packing.packed[""]) == 132


def damaged(given: dict[str, Any], kind: str) -> dict[str, Any]:
    tables = [key for key in given if key.endswith("embeddings")]
    conv = next(key for key in given if key.endswith("positional_conv.bias"))
    if kind == "rows":
        given[tables[0]] = given[tables[0]][:5]
    elif kind == "table":
        del given[tables[0]]
    elif kind == "conv":
        del given[conv]
    elif kind == "shape":
        given[conv] = given[conv][:5]
    elif kind == "width":
        given[tables[1]] = given[tables[1]][:, :5]
    elif kind == "short":
        given |= {table: given[table][:1] for table in tables}
    elif kind == "dtype":
        given[tables[1]] = given[tables[1]].astype("int32")
    return given


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("rows", "different numbers of rows"),
        ("table", "has no position table for"),
        ("conv", "one of its convolution's weight and bias only"),
        ("shape", r"is \[5\], .* needs \[32\]"),
        ("width", r"is \[40, 5\], .* needs \[40, 32\]"),
        ("short", "are for 1 frames; its clips have two at least"),
        ("dtype", "is I32, not of weights"),
    ],
)
def test_damaged(kind: str, message: str, tmp_path: Path) -> None:
    save_file(damaged(load_file(extension_of("case_b")), kind), tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match=message):
        prepare_weights(tmp_path / "bad.safetensors", open_source(str(base_of("case_b"))))


def test_without_convolutions_it_is_the_identity(tmp_path: Path) -> None:
    given = {key: value for key, value in load_file(extension_of("case_b")).items() if "conv" not in key}
    save_file(given, tmp_path / "tables.safetensors")
    execute(prepare_weights(tmp_path / "tables.safetensors", open_source(str(base_of("case_b")))), tmp_path / "grown")
    conv = load_file(tmp_path / "grown" / WEIGHTS)["mid_block.attentions.0.temporal_conv.weight"]
    assert (conv[:, :, 1, 1, 1] == np.eye(32)).all()
    assert np.abs(conv).sum() == 32


def test_wrong_bases(make_ltx: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds LTXVideoTransformer3DModel; ExVideo's weights need Stable Video"):
        prepare_weights(extension_of("case_b"), open_source(str(make_ltx())))
    with pytest.raises(CheckpointError, match="a UNet of another shape"):
        prepare_weights(extension_of("case_b"), open_source(str(base_of("case_a"))))
    with pytest.raises(SourceError, match="holds UNetSpatioTemporalConditionModel; DiffSynth's names are for ExVideo"):
        prepare_export(open_source(str(base_of("case_a"))))
    extend(base_of("case_a"), tmp_path / "grown", 40)
    with pytest.raises(SourceError, match="ExVideo's weights need Stable Video"):
        prepare_weights(extension_of("case_a"), open_source(str(tmp_path / "grown")))


class TestSettings:
    """Of the pipeline: the published weights want more contrast, and say so nowhere; ours say what they want."""

    def apply(self, weights: Path, pipeline: Path, output: Path) -> dict[str, Any]:
        execute(prepare_weights(weights, open_source(str(pipeline))), output)
        index: dict[str, Any] = json.loads((output / "model_index.json").read_text())
        return {name: index.get(name) for name in ("_class_name", "contrast", "video_scaling_factor")}

    def test_published(self, pipeline: Path, tmp_path: Path) -> None:
        found = self.apply(extension_of("case_b"), pipeline, tmp_path / "grown")
        assert found == {"_class_name": "ExVideoPipeline", "contrast": 1.2, "video_scaling_factor": 0.13025}

    def test_there_and_back(self, pipeline: Path, tmp_path: Path) -> None:
        extend(pipeline, tmp_path / "own", 40)
        write_export(prepare_export(open_source(str(tmp_path / "own"))), tmp_path / "own.safetensors")
        plain = {"_class_name": "ExVideoPipeline", "contrast": None, "video_scaling_factor": None}
        assert self.apply(tmp_path / "own.safetensors", pipeline, tmp_path / "again") == plain
        self.apply(extension_of("case_b"), pipeline, tmp_path / "grown")
        write_export(prepare_export(open_source(str(tmp_path / "grown"))), tmp_path / "published.safetensors")
        assert self.apply(tmp_path / "published.safetensors", pipeline, tmp_path / "back")["contrast"] == 1.2

    @pytest.mark.parametrize("settings", [{"contrast": "1"}, {"unet": 1}])
    def test_of_a_stranger(self, settings: dict[str, Any], tmp_path: Path) -> None:
        metadata = {"modelgrow.exvideo": json.dumps(settings)}
        save_file(load_file(extension_of("case_b")), tmp_path / "bad.safetensors", metadata)
        with pytest.raises(CheckpointError, match="expected numbers, contrast, video_scaling_factor"):
            prepare_weights(tmp_path / "bad.safetensors", open_source(str(base_of("case_b"))))


class TestCommands:
    def test_apply_and_pack(self, grow: Grow, tmp_path: Path) -> None:
        weights, base = str(extension_of("case_b")), str(base_of("case_b"))
        code, out, _ = grow("apply", weights, "--base", base, "-o", "grown", "--dry-run")
        assert code == 0
        assert "Nothing was written" in out
        assert not (tmp_path / "grown").exists()

        code, out, _ = grow("apply", weights, "--base", base, "-o", "grown")
        assert code == 0
        assert "clips of up to 40 frames" in out
        assert "written: grown" in out
        code, out, _ = grow("pack", "grown", "--format", "diffsynth", "-o", "back.safetensors", "--json")
        assert json.loads(out)["frames"] == 40
        assert json.loads(out)["tensors"] == 132
        code, out, _ = grow("apply", "back.safetensors", "--base", base, "-o", "again", "--json")
        assert code == 0
        first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("grown", "again"))
        assert first.keys() == second.keys()
        assert all((first[name] == second[name]).all() for name in first)

    def test_mistakes(self, grow: Grow, tmp_path: Path) -> None:
        apply_weights("case_b", tmp_path / "grown")
        code, _, err = grow("pack", "grown", "--format", "diffsynth", "-o", "folder")
        assert code == 1
        assert "one file; name it NAME.safetensors" in err
        code, _, err = grow("apply", str(extension_of("case_b")), "--base", str(base_of("case_a")))
        assert code == 1
        assert "another shape" in err


def test_a_folder_is_no_place_for_it(tmp_path: Path) -> None:
    export = prepare_export(open_source(str(apply_weights("case_b", tmp_path / "grown"))))
    with pytest.raises(OutputError, match=r"name it NAME\.safetensors"):
        write_export(export, tmp_path / "folder")
