"""ExVideo's extension as a plan: what is new and of what values, what is edited, and all of it taken back."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exvideo_cases import GOLDENS, base_of, extend, save_pipeline
from growths import pack, snapshot, unpack
from safetensors.numpy import load_file, save_file

from modelgrow.surgery import (
    CheckpointError,
    Plan,
    PlanError,
    Record,
    anatomies,
    execute,
    inspect,
    open_checkpoint,
    open_source,
)
from modelgrow.surgery.compare import broken_promises
from modelgrow.surgery.content import Copy, Ones, Values
from modelgrow.surgery.exvideo import CLASS, plan_exvideo, sinusoids
from modelgrow.surgery.header import read_header
from modelgrow.surgery.packed import read_packed
from modelgrow.surgery.pingpong import ping_pong
from modelgrow.surgery.plan import PlannedTensor
from modelgrow.surgery.segments import segments_of
from modelgrow.surgery.shrink import prepare_shrink

Grow = Callable[..., tuple[int, str, str]]
BASE = base_of("case_b")
SVD = anatomies()["UNetSpatioTemporalConditionModel"]
BLOCKS = (
    "down_blocks.1.attentions.0",
    "mid_block.attentions.0",
    "up_blocks.0.attentions.0",
    "up_blocks.0.attentions.1",
)


def plan(num_frames: int, folder: Path = BASE) -> Plan:
    checkpoint = open_checkpoint(folder)
    made = plan_exvideo(checkpoint, anatomies()[str(checkpoint.class_name)], num_frames)
    made.validate(checkpoint)
    return made


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return save_pipeline("case_b", tmp_path / "svd")


class TestPingPong:
    def test_the_published_walk(self) -> None:
        expected = load_file(GOLDENS / "posinit" / "posinit.safetensors")["position_ids_n200"]
        assert ping_pong(200, 25) == tuple(expected)

    @pytest.mark.parametrize(
        ("base", "expected"),
        [
            (14, [*range(14), *range(12, 1, -1), *range(3, 14), 12]),
            (5, [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3]),
            (2, [0, 1, 0, 1, 0, 1]),
            (1, [0, 0, 0, 0]),
        ],
    )
    def test_other_lengths_by_hand(self, base: int, expected: list[int]) -> None:
        assert ping_pong(len(expected), base) == tuple(expected)

    @pytest.mark.parametrize("base", range(2, 40))
    def test_no_step_is_longer_than_a_trained_one(self, base: int) -> None:
        walk = ping_pong(200, base)
        assert max(abs(a - b) for a, b in pairwise(walk)) == 1
        assert set(walk) == set(range(base))


def test_sinusoids_are_the_base_s_to_the_last_bits() -> None:
    expected = load_file(GOLDENS / "posinit" / "posinit.safetensors")["c320_n128"]
    found = np.frombuffer(sinusoids(ping_pong(128, 25), 320), "<f4").reshape(128, 320)
    assert np.abs(found - expected).max() < 2e-6
    assert found[:, :160][0].tolist() == [1.0] * 160
    assert len(sinusoids((0, 1), 5)) == 2 * 5 * 4


def test_what_is_new() -> None:
    made = plan(40)
    assert made.new_names == tuple(
        f"{block}.{name}"
        for block in BLOCKS
        for name in ("position_table.weight", "temporal_conv.weight", "temporal_conv.bias")
    )
    assert made.changed_names == ()
    assert made.config_edits == {"_class_name": CLASS, "num_position_frames": 40}
    assert made.pipeline_edits == {"_class_name": "ExVideoPipeline"}
    assert set(made.blocks) == {
        f"{block}.{part}"
        for block in BLOCKS
        for part in ("position_table", "temporal_conv", "time_pos_embed", "temporal_transformer_blocks")
    }
    table = next(tensor for tensor in made.tensors if tensor.name == "mid_block.attentions.0.position_table.weight")
    assert (table.dtype, table.shape) == ("F32", (40, 32))
    assert table.content == Values(data=sinusoids(ping_pong(40, 25), 32))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_identity_convolution(dtype: str) -> None:
    conv = PlannedTensor(
        name="conv", dtype=dtype, shape=(3, 3, 3, 3, 3), content=Ones(start=13, stride=27 * 4), is_new=True
    )
    data = b"".join(segment.data or bytes(segment.nbytes) for segment in segments_of([conv], {}, 4096))
    width = len(data) // 243
    values = np.frombuffer(data, {2: "<u2", 4: "<u4", 8: "<u8"}[width]).reshape(3, 3, 3, 3, 3)
    one = {"F32": struct.pack("<f", 1), "F16": struct.pack("<e", 1), "BF16": b"\x80\x3f", "F64": struct.pack("<d", 1)}
    expected = np.zeros_like(values)
    expected[range(3), range(3), 1, 1, 1] = int.from_bytes(one[dtype], "little")
    assert (values == expected).all()


def test_written_and_read_back(tmp_path: Path) -> None:
    grown = open_checkpoint(extend(BASE, tmp_path / "grown", 40))
    assert broken_promises(grown, open_checkpoint(BASE)) == ()
    held = load_file(tmp_path / "grown" / "diffusion_pytorch_model.safetensors")
    for block in BLOCKS:
        expected = np.zeros((32, 32, 3, 3, 3), "float32")
        expected[range(32), range(32), 1, 1, 1] = 1
        assert (held[f"{block}.temporal_conv.weight"] == expected).all()
        assert not held[f"{block}.temporal_conv.bias"].any()


def test_the_base_s_own_length_counts(tmp_path: Path) -> None:
    config = json.loads((BASE / "config.json").read_text())
    for path in BASE.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_frames": 14}))
    table = next(t for t in plan(30, tmp_path).tensors if t.name.endswith("position_table.weight"))
    assert table.content == Values(data=sinusoids(ping_pong(30, 14), 32))
    assert "up to 14 frames" in plan(30, tmp_path).notes[0]
    (tmp_path / "config.json").write_text(json.dumps({key: config[key] for key in config if key != "num_frames"}))
    assert "up to 25 frames" in plan(30, tmp_path).notes[0]


class TestPipeline:
    def test_index_names_the_new_classes(self, pipeline: Path, tmp_path: Path) -> None:
        extend(pipeline, tmp_path / "grown", 40)
        index = json.loads((tmp_path / "grown" / "model_index.json").read_text())
        assert index["_class_name"] == "ExVideoPipeline"
        assert index["unet"] == ["modelgrow.pipelines", CLASS]
        assert index["scheduler"] == ["diffusers", "EulerDiscreteScheduler"]
        assert list(index) == list(json.loads((pipeline / "model_index.json").read_text()))

    def test_taken_back_byte_for_byte(self, pipeline: Path, tmp_path: Path) -> None:
        extend(pipeline, tmp_path / "grown", 40)
        extend(tmp_path / "grown", tmp_path / "longer", 60)
        once = execute(prepare_shrink(open_source(str(tmp_path / "longer"))), tmp_path / "once")
        assert snapshot(once) == snapshot(tmp_path / "grown")
        twice = execute(prepare_shrink(open_source(str(once))), tmp_path / "twice")
        assert snapshot(twice) == snapshot(pipeline)

    def test_packed_and_put_back(self, pipeline: Path, tmp_path: Path) -> None:
        extend(pipeline, tmp_path / "grown", 40)
        packing = pack(tmp_path / "grown", tmp_path / "growth.safetensors")
        assert set(packing.packed["unet"]) == set(plan(40).new_names)
        assert snapshot(unpack(tmp_path / "growth.safetensors", pipeline, tmp_path / "put")) == snapshot(
            tmp_path / "grown"
        )

    def test_a_component_s_growth_on_a_pipeline(self, pipeline: Path, tmp_path: Path) -> None:
        """Nothing was said of an index when it was packed; the class needs an entry of its own all the same."""
        extend(pipeline / "unet", tmp_path / "grown", 40)
        pack(tmp_path / "grown", tmp_path / "growth.safetensors")
        put = unpack(tmp_path / "growth.safetensors", pipeline, tmp_path / "put")
        assert json.loads((put / "model_index.json").read_text())["unet"] == ["modelgrow.pipelines", CLASS]

    def test_inspect_shows_it(self, pipeline: Path, tmp_path: Path) -> None:
        extend(pipeline, tmp_path / "grown", 40)
        report = inspect(open_source(str(tmp_path / "grown"))).components[0]
        assert report.class_name == CLASS
        assert "at most 40 frames" in str(report.frames)
        assert report.history[-1] == "extend-frames to=40"


def test_longer_tables_walk_over_the_rows_that_are_there(tmp_path: Path) -> None:
    extend(BASE, tmp_path / "grown", 30)
    extend(tmp_path / "grown", tmp_path / "longer", 70)
    name = "mid_block.attentions.0.position_table.weight"
    before = load_file(tmp_path / "grown" / "diffusion_pytorch_model.safetensors")[name]
    after = load_file(tmp_path / "longer" / "diffusion_pytorch_model.safetensors")[name]
    assert (after == before[list(ping_pong(70, 30))]).all()
    made = plan(70, tmp_path / "grown")
    assert (made.new_names, made.changed_names) == ((), tuple(f"{block}.position_table.weight" for block in BLOCKS))


@pytest.mark.parametrize(
    ("num_frames", "extended", "message"),
    [
        (1, False, "1 frames: ExVideo's convolution over time needs clips of two"),
        (30, True, "clips of up to 30 frames already"),
        (20, True, "ask for more than 30"),
    ],
)
def test_refused(num_frames: int, extended: bool, message: str, tmp_path: Path) -> None:
    folder = extend(BASE, tmp_path / "grown", 30) if extended else BASE
    with pytest.raises(PlanError, match=message):
        plan(num_frames, folder)


def test_other_architectures_are_refused() -> None:
    with pytest.raises(PlanError, match="WanTransformer3DModel: ExVideo extends UNetSpatioTemporalConditionModel"):
        plan_exvideo(open_checkpoint(BASE), anatomies()["WanTransformer3DModel"], 40)


def test_the_plan_prints() -> None:
    made: dict[str, Any] = plan(40).to_json()
    kinds = {tensor["content"] for tensor in made["tensors"]}
    assert kinds == {"copy", "values", "ones", "zeros"}
    assert made["pipeline_edits"] == {"_class_name": "ExVideoPipeline"}
    assert all(isinstance(tensor.content, Copy) for tensor in plan(40).tensors if not tensor.is_new)
    json.dumps(made)


class TestCommand:
    def test_extended_proven_and_taken_back(self, grow: Grow, pipeline: Path, tmp_path: Path) -> None:
        code, out, _ = grow("extend-frames", str(pipeline), "--to", "40", "-o", "grown")
        assert code == 0
        assert "clips of up to 25 frames" in out
        assert json.loads((tmp_path / "grown" / "model_index.json").read_text())["_class_name"] == "ExVideoPipeline"
        code, out, _ = grow("verify", "grown", "--base", str(pipeline))
        assert code == 0
        assert "equal to the last bit" in out
        code, out, _ = grow("inspect", "grown")
        assert "at most 40 frames" in out
        code, _, _ = grow("shrink", "grown", "-o", "again")
        assert code == 0
        assert snapshot(tmp_path / "again") == snapshot(pipeline)

    def test_the_base_s_length_can_be_said(self, grow: Grow, tmp_path: Path) -> None:
        code, out, _ = grow("extend-frames", str(BASE), "--to", "40", "--base-frames", "14", "--dry-run")
        assert code == 0
        assert "clips of up to 14 frames" in out
        assert "ones" in out
        assert not list(tmp_path.glob("*grown*"))

    def test_there_is_no_method_to_choose(self, grow: Grow) -> None:
        code, _, err = grow("extend-frames", str(BASE), "--to", "40", "--method", "riflex")
        assert code == 1
        assert "extended by ExVideo" in err


class TestUntrustedIndex:
    """diffusers imports what model_index.json names, so a growth from a stranger may name models only."""

    @pytest.mark.parametrize(
        "entry",
        [
            {"unet": ["os", "system"]},
            {"unet": ["modelgrow.pipelines", "X.y"]},
            {"unet": "modelgrow.pipelines"},
            {"_class_name": "../x"},
            {"_class_name": ["diffusers", "X"]},
            {"_diffusers_version": "0"},
            {"../vae": ["diffusers", "X"]},
        ],
    )
    def test_refused(self, entry: dict[str, Any], pipeline: Path, tmp_path: Path) -> None:
        extend(pipeline, tmp_path / "grown", 40)
        pack(tmp_path / "grown", tmp_path / "growth.safetensors")
        header = read_header(tmp_path / "growth.safetensors")
        data = json.loads(header.metadata["modelgrow"])
        assert data["pipeline"] == {"unet": ["modelgrow.pipelines", CLASS], "_class_name": "ExVideoPipeline"}
        data["pipeline"] = entry
        save_file(
            load_file(tmp_path / "growth.safetensors"),
            tmp_path / "bad.safetensors",
            {**header.metadata, "modelgrow": json.dumps(data)},
        )
        with pytest.raises(CheckpointError, match=r"a growth may not write .* into model_index\.json"):
            read_packed(tmp_path / "bad.safetensors")

    def test_a_record_s_way_back_is_checked_too(self, pipeline: Path, tmp_path: Path) -> None:
        """`shrink` writes what growth.json says was there before."""
        path = extend(pipeline, tmp_path / "grown", 40) / "unet" / "growth.json"
        data = json.loads(path.read_text())
        assert data["steps"][0]["pipeline_before"]["unet"] == ["diffusers", "UNetSpatioTemporalConditionModel"]
        data["steps"][0]["pipeline_before"]["unet"] = ["os", "system"]
        path.write_text(json.dumps(data))
        with pytest.raises(CheckpointError, match="may not write 'unet'"):
            open_checkpoint(path.parent)


def test_blocks_of_a_record(tmp_path: Path) -> None:
    """What `--train grown-blocks` trains: the parts of the temporal blocks that ExVideo trains, not all around them."""
    record = open_checkpoint(extend(BASE, tmp_path / "grown", 40)).record
    assert record is not None
    assert set(record.blocks) == set(plan(40).blocks)
    assert Record.parse(record.to_json(), where="x") == record
