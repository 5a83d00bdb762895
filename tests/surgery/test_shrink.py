"""Going back: the base's tensors byte for byte, its config and its record."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from growths import grow, overwrite

from modelgrow.surgery import (
    CheckpointError,
    PlanError,
    SourceError,
    execute,
    open_checkpoint,
    open_source,
)
from modelgrow.surgery.content import Piece
from modelgrow.surgery.fingerprint import fingerprint_of
from modelgrow.surgery.header import read_header, write_header
from modelgrow.surgery.readback import read_chunks
from modelgrow.surgery.record import RECORD_NAME, Record
from modelgrow.surgery.shrink import prepare_shrink
from modelgrow.surgery.undo import take_back

Maker = Callable[..., Path]
Held = dict[str, tuple[str, tuple[int, ...], bytes]]


def shrink(folder: Path, output: Path, **options: Any) -> Path:
    return execute(prepare_shrink(open_source(str(folder)), **options), output)


def held(folder: Path) -> Held:
    """Every tensor: dtype, shape, bytes."""
    tensors = open_checkpoint(folder).tensors
    return {name: (t.dtype, t.shape, b"".join(read_chunks(t))) for name, t in tensors.items()}


def config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"mode": "insert"},
        {"mode": "insert", "blocks": 2, "group": 2},
        {"mode": "insert", "blocks": 12},
        {"mode": "prefix", "blocks": 3},
        {"mode": "suffix", "blocks": 1, "init": "copy"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_shrink_undoes_expand(make_ltx: Maker, tmp_path: Path, options: dict[str, Any], shards: int) -> None:
    base = make_ltx(depth=4, shards=shards)
    grown = grow(base, tmp_path / "grown", **options)
    again = shrink(grown, tmp_path / "again")
    assert held(again) == held(base) != held(grown)
    assert config(again) == config(base)
    assert not (again / RECORD_NAME).exists()
    assert (again / "README.md").read_text() == "carried along"
    assert len(list(again.glob("*.safetensors"))) == shards
    assert read_header(next(again.glob("*.safetensors"))).metadata == {"format": "pt", "made": "by hand"}


def test_steps_come_back_one_by_one(make_ltx: Maker, tmp_path: Path) -> None:
    base = make_ltx(shards=2)
    first = grow(base, tmp_path / "1", mode="prefix", blocks=2)
    second = grow(first, tmp_path / "2", mode="insert")
    third = grow(second, tmp_path / "3", mode="suffix", blocks=1)
    for folder, earlier in ((third, second), (second, first)):
        again = shrink(folder, tmp_path / f"from-{folder.name}")
        assert held(again) == held(earlier)
        assert config(again) == config(earlier)
        assert (again / RECORD_NAME).read_bytes() == (earlier / RECORD_NAME).read_bytes()
    twice = shrink(shrink(second, tmp_path / "x"), tmp_path / "y")
    assert held(twice) == held(base)
    assert not (twice / RECORD_NAME).exists()


def test_what_was_trained_since_stays(make_ltx: Maker, tmp_path: Path) -> None:
    base = make_ltx()
    grown = grow(base, tmp_path / "grown", mode="suffix", blocks=1)
    job = prepare_shrink(open_source(str(grown)))
    assert not any("changed since" in note for note in job.plans[""].notes)
    overwrite(grown, "transformer_blocks.1.attn1.to_q.weight", b"\x01\x02")
    job = prepare_shrink(open_source(str(grown)))
    assert any("changed since" in note for note in job.plans[""].notes)
    again = held(execute(job, tmp_path / "again"))
    before = held(base)
    assert [name for name in again if again[name] != before[name]] == ["transformer_blocks.1.attn1.to_q.weight"]
    assert again["transformer_blocks.1.attn1.to_q.weight"][2][:2] == b"\x01\x02"


def test_pipeline_with_two_transformers(make_pipeline: Callable[[], Path], tmp_path: Path) -> None:
    base = make_pipeline()
    shutil.copytree(base / "transformer", base / "transformer_2")
    index = json.loads((base / "model_index.json").read_text())
    index["transformer_2"] = index["transformer"]
    (base / "model_index.json").write_text(json.dumps(index))
    grown = grow(base, tmp_path / "grown", mode="suffix", blocks=1)
    again = shrink(grown, tmp_path / "again")
    for name in ("transformer", "transformer_2"):
        assert held(again / name) == held(base / name) != held(grown / name)
        assert not (again / name / RECORD_NAME).exists()
    assert (again / "vae" / "config.json").read_bytes() == (base / "vae" / "config.json").read_bytes()
    one = shrink(grown, tmp_path / "one", components=["transformer_2"])
    assert held(one / "transformer") == held(grown / "transformer")
    assert (one / "transformer" / RECORD_NAME).is_file()
    assert held(one / "transformer_2") == held(base / "transformer_2")


class TestTensorsThatWereTakenApart:
    """As SD3's and Mochi's last block: its modulation stands in the grown model in another order, with zeros."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        rng = random.Random(1)
        tensors = {
            "a.0.norm.weight": ("F32", (6, 2), rng.randbytes(48)),
            "a.1.other.weight": ("F32", (3,), rng.randbytes(12)),
            "a.1.new": ("F32", (1,), rng.randbytes(4)),
        }
        header = write_header({name: (d, s, len(data)) for name, (d, s, data) in tensors.items()}, {})
        folder = tmp_path / "grown"
        folder.mkdir()
        weights = header + b"".join(data for _, _, data in tensors.values())
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(weights)
        (folder / "config.json").write_text('{"_class_name": "X", "depth": 2, "added": true, "kept": 1}')
        step = {
            "operation": "expand",
            "options": {},
            "index_map": {"a": [1]},
            "copied_from": {},
            "new": ["a.1.new"],
            "zeroed": [],
            "zeroed_rows": {},
            "changed": ["a.0.norm.weight"],
            "rebuilt": {"last.linear": [["a.0.norm.weight", 4, 6], ["a.0.norm.weight", 0, 2]]},
            "config_before": {"depth": 1},
            "config_added": ["added"],
            "input_fingerprint": "sha256-sampled:unknown",
            "made_with": "a test",
        }
        record = {"format": 1, "base": {"class": "X", "name": "x", "fingerprint": "f"}, "steps": [step]}
        (folder / RECORD_NAME).write_text(json.dumps(record))
        return folder

    def edit(self, folder: Path, **changes: Any) -> Path:
        record = json.loads((folder / RECORD_NAME).read_text())
        record["steps"][-1].update(changes)
        (folder / RECORD_NAME).write_text(json.dumps(record))
        return folder

    def test_they_are_put_together(self, folder: Path, tmp_path: Path) -> None:
        before = held(folder)
        data = before["a.0.norm.weight"][2]
        again = shrink(folder, tmp_path / "again")
        assert held(again) == {
            "last.linear": ("F32", (4, 2), data[32:48] + data[:16]),
            "a.0.other.weight": before["a.1.other.weight"],
        }
        assert config(again) == {"_class_name": "X", "depth": 1, "kept": 1}

    def test_through_two_steps(self, folder: Path) -> None:
        """A second step took the same tensor apart once more: pieces of pieces, and one of them whole."""
        checkpoint = open_checkpoint(folder)
        assert checkpoint.record is not None
        second = checkpoint.record.steps[0]
        first = replace(
            second,
            new=(),
            index_map={},
            changed=("last.linear",),
            rebuilt={"old": (Piece(source="last.linear", start=1, stop=3),)},
        )
        found = {tensor.name: tensor for tensor in take_back(checkpoint, [first, second])}
        assert set(found) == {"old", "a.0.other.weight"}
        name = "a.0.norm.weight"
        assert found["old"].shape == (2, 2)
        assert found["old"].content.parts == (  # type: ignore[union-attr]
            Piece(source=name, start=5, stop=6),
            Piece(source=name, start=0, stop=1),
        )

    def test_changed_for_good(self, folder: Path) -> None:
        with pytest.raises(PlanError, match=r"changed 'a.0.norm.weight' and kept no way .* can't be taken back"):
            prepare_shrink(open_source(str(self.edit(folder, rebuilt={}))))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"new": ["a.1.new", "gone"]}, "made 'gone', which is not there"),
            ({"index_map": {"a": [3]}}, "neither carried over nor made 'a.1.other.weight'"),
            ({"rebuilt": {"x": [["a.0.norm.weight", 4, 7]]}}, "made of rows 4 to 7"),
            ({"rebuilt": {"x": [["a.0.norm.weight", -1, 2]]}}, "made of rows -1 to 2"),
            ({"rebuilt": {"a.0.other.weight": [["a.0.norm.weight", 0, 2]]}}, "two tensors would be called"),
            ({"rebuilt": {"x": [["a.0.norm.weight", 0, 2], ["a.1.other.weight", 0, 2]]}}, "do not fit together"),
        ],
    )
    def test_record_of_other_weights(self, folder: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            prepare_shrink(open_source(str(self.edit(folder, **changes))))


def test_nothing_to_take_back(make_ltx: Maker, make_pipeline: Callable[[], Path], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"base: it has no growth\.json"):
        prepare_shrink(open_source(str(make_ltx())))
    pipeline = make_pipeline()
    with pytest.raises(SourceError, match=r"has no component 'unet'; it has: transformer, vae"):
        prepare_shrink(open_source(str(pipeline)), components=["unet"])
    grown = grow(pipeline, tmp_path / "grown")
    with pytest.raises(SourceError, match=r"vae has no growth\.json"):
        prepare_shrink(open_source(str(grown)), components=["transformer", "vae"])


def test_record_says_where_it_came_from(make_ltx: Maker, tmp_path: Path) -> None:
    """The control of the fingerprint that `shrink` compares with: it is the input's, of either step."""
    base = make_ltx()
    first = grow(base, tmp_path / "1")
    second = Record.read(grow(first, tmp_path / "2", mode="suffix", blocks=1) / RECORD_NAME)
    assert [step.input_fingerprint for step in second.steps] == [
        fingerprint_of(open_checkpoint(base)),
        fingerprint_of(open_checkpoint(first)),
    ]
    assert second.base.fingerprint == second.steps[0].input_fingerprint != second.steps[1].input_fingerprint
