"""A growth comes from strangers: whatever it holds, the answer is an error of ours and no output."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from growths import grow, pack, snapshot, unpack

from modelgrow.surgery import CheckpointError, GrowError, open_source
from modelgrow.surgery.header import read_header, write_header
from modelgrow.surgery.packed import KEY, read_packed
from modelgrow.surgery.unpack import execute_apply, prepare_apply

Maker = Callable[..., Path]
TO_Q = "transformer_blocks.1.attn1.to_q.weight"


@pytest.fixture
def growth(make_ltx: Maker, tmp_path: Path) -> Path:
    pack(grow(make_ltx(shards=2), tmp_path / "grown", mode="suffix", blocks=1), tmp_path / "growth.safetensors")
    return tmp_path / "growth.safetensors"


def edit(growth: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    header = read_header(growth)
    data = growth.read_bytes()[8 + int.from_bytes(growth.read_bytes()[:8], "little") :]
    value = json.loads(header.metadata[KEY])
    change(value)
    tensors = {name: (t.dtype, t.shape, t.nbytes) for name, t in header.tensors.items()}
    growth.write_bytes(write_header(tensors, {**header.metadata, KEY: json.dumps(value)}) + data)
    return growth


def refused(growth: Path, tmp_path: Path) -> str:
    before = snapshot(tmp_path)
    with pytest.raises(GrowError) as caught:
        unpack(growth, tmp_path / "base", tmp_path / "out")
    assert snapshot(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "base", "grown", "growth.safetensors"]
    return str(caught.value)


def test_the_edit_alone_does_no_harm(growth: Path, tmp_path: Path) -> None:
    edit(growth, lambda value: None)
    assert snapshot(unpack(growth, tmp_path / "base", tmp_path / "out")) == snapshot(tmp_path / "grown")


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/x.safetensors", "a/b.safetensors", ".x.safetensors", "x.bin", "", "a\\b.safetensors", 3],
)
def test_names_of_files(growth: Path, tmp_path: Path, name: Any) -> None:
    def change(value: dict[str, Any]) -> None:
        value["components"][""]["files"][0]["name"] = name

    found = refused(edit(growth, change), tmp_path)
    assert "weights can't be called" in found or "expected text, found 3" in found


@pytest.mark.parametrize("name", ["../x", "model_index.json", "x.py", "/etc/x.safetensors.index.json", "a\nb"])
def test_names_of_texts(growth: Path, tmp_path: Path, name: str) -> None:
    def change(value: dict[str, Any]) -> None:
        value["components"][""]["texts"][name] = "{}"

    assert "may not bring a file called" in refused(edit(growth, change), tmp_path)


@pytest.mark.parametrize("name", ["..", "a/b", ".", "x-y"])
def test_names_of_components(growth: Path, tmp_path: Path, name: str) -> None:
    def change(value: dict[str, Any]) -> None:
        value["components"][name] = value["components"].pop("")

    assert "no name for a component" in refused(edit(growth, change), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format=2), "format 2"),
        (lambda v: v.update(components={}), "components must be"),
        (lambda v: v.update(components=[]), "expected an object"),
        (lambda v: v.update(others={"x": 1}), "expected an object"),
        (lambda v: v.update(others={"x": {"bytes": "1"}}), "expected bytes"),
        (lambda v: v.update(made_with=None), "expected text"),
        (lambda v: v["components"][""].update(fingerprint="sha256-sampled:0"), "differs from the model"),
        (lambda v: v["components"][""].update(files=[]), "files must be a list"),
        (lambda v: v["components"][""]["files"].append(v["components"][""]["files"][0]), "same name"),
        (lambda v: v["components"][""]["texts"].pop("config.json"), "config.json is missing"),
        (lambda v: v["components"][""]["texts"].update({"config.json": "[]"}), "expected a JSON object"),
        (lambda v: v["components"][""]["texts"].update({"config.json": '{"a": "\ud800"}'}), "surrogate"),
        (lambda v: v["components"][""]["texts"].update({"growth.json": "{}"}), "record format"),
        (lambda v: v["components"][""]["files"][0].update(header="x"), "does not begin"),
        (lambda v: v["components"][""]["files"][0].update(header="{}"), "no component"),
        (lambda v: v["components"][""]["files"][0].update(header='{"a": {}}'), "expected dtype"),
    ],
)
def test_metadata(growth: Path, tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    found = refused(edit(growth, change), tmp_path)
    if message != "no component":
        assert message in found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"BF16"', '"F16"'),
        ('"BF16"', '"X"'),
        ("[4,4]", "[2,8]"),
        ("[4,4]", "[4,4,1]"),
        ("[4,4]", "[-4,-4]"),
        ('"data_offsets":[0,', '"data_offsets":[1,'),
        (TO_Q, "transformer_blocks.7.attn1.to_q.weight"),
        (TO_Q, ""),
    ],
)
def test_headers(growth: Path, tmp_path: Path, old: str, new: str) -> None:
    def change(value: dict[str, Any]) -> None:
        for file in value["components"][""]["files"]:
            file["header"] = file["header"].replace(old, new)

    refused(edit(growth, change), tmp_path)


def test_fuzz(growth: Path, tmp_path: Path) -> None:
    """Cut, flipped, spliced: refused, or the very weights of the grown folder."""
    good, rng = growth.read_bytes(), random.Random(5)
    expected, base = snapshot(tmp_path / "grown"), open_source(str(tmp_path / "base"))
    refused = 0
    for turn in range(150):
        data = bytearray(good)
        place = rng.randrange(len(data))
        if turn % 3 == 0:
            del data[place:]
        elif turn % 3 == 1:
            data[place] ^= 1 << rng.randrange(8)
        else:
            data[place:place] = data[: rng.randrange(40)]
        growth.write_bytes(bytes(data))
        try:
            execute_apply(prepare_apply(read_packed(growth), base), tmp_path / "out")
        except GrowError:
            refused += 1
            assert not (tmp_path / "out").exists()
        else:
            weights = [name for name in expected if name.endswith(".safetensors")]
            found = snapshot(tmp_path / "out")
            assert [found[name] for name in weights] == [expected[name] for name in weights]
            shutil.rmtree(tmp_path / "out")
    assert refused > 120


def test_a_file_that_is_no_growth(make_ltx: Maker, tmp_path: Path) -> None:
    base = make_ltx()
    with pytest.raises(CheckpointError, match="no growth: its metadata have no key 'modelgrow'"):
        read_packed(base / "diffusion_pytorch_model.safetensors")
