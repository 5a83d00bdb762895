"""A growth by itself: out of a grown folder and back onto its base, byte for byte, and what is refused."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelgrow.surgery import (
    CheckpointError,
    ExpandOptions,
    GrowError,
    OutputError,
    PlanError,
    SourceError,
    execute,
    open_checkpoint,
    open_source,
    plan_expand,
    prepare,
)
from modelgrow.surgery.apply import read_chunks
from modelgrow.surgery.header import read_header, write_header
from modelgrow.surgery.pack import Packing, prepare_pack, write_pack
from modelgrow.surgery.packed import KEY, read_packed
from modelgrow.surgery.unpack import execute_apply, prepare_apply

Maker = Callable[..., Path]
TO_Q = "transformer_blocks.1.attn1.to_q.weight"


def grow(folder: Path, output: Path, *, mode: str = "insert", **options: Any) -> Path:
    chosen = ExpandOptions(mode=mode, **options)
    job = prepare(open_source(str(folder)), lambda checkpoint, anatomy: plan_expand(checkpoint, anatomy, chosen))
    return execute(job, output)


def pack(grown: Path, output: Path, **options: Any) -> Packing:
    packing = prepare_pack(open_source(str(grown)), **options)
    write_pack(packing, output)
    return packing


def unpack(growth: Path, base: Path, output: Path) -> Path:
    return execute_apply(prepare_apply(read_packed(growth), open_source(str(base))), output)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder, with a digest of its bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def overwrite(folder: Path, name: str, data: bytes) -> None:
    """Train a tensor: other bytes in place."""
    tensor = open_checkpoint(folder).tensors[name]
    with tensor.file.open("r+b") as file:
        file.seek(tensor.offset)
        file.write(data)


def two_transformers(base: Path) -> Path:
    shutil.copytree(base / "transformer", base / "transformer_2")
    overwrite(base / "transformer_2", TO_Q, b"\x07\x08")
    index = json.loads((base / "model_index.json").read_text())
    index["transformer_2"] = index["transformer"]
    (base / "model_index.json").write_text(json.dumps(index))
    shutil.rmtree(base / ".git")
    return base


class TestRoundTrip:
    @pytest.mark.parametrize("shards", [1, 3])
    @pytest.mark.parametrize("mode", ["insert", "prefix", "suffix"])
    def test_component(self, make_ltx: Maker, tmp_path: Path, mode: str, shards: int) -> None:
        base = make_ltx(shards=shards)
        grown = grow(base, tmp_path / "grown", mode=mode)
        pack(grown, tmp_path / "growth.safetensors")
        again = unpack(tmp_path / "growth.safetensors", base, tmp_path / "again")
        assert snapshot(again) == snapshot(grown) != snapshot(base)

    def test_two_steps_trained(self, make_ltx: Maker, tmp_path: Path) -> None:
        base = make_ltx(shards=2)
        first = grow(base, tmp_path / "first", mode="suffix", blocks=2)
        grown = grow(first, tmp_path / "grown", mode="insert")
        trained = "transformer_blocks.9.attn1.to_out.0.weight"
        overwrite(grown, trained, random.Random(1).randbytes(32))
        pack(grown, tmp_path / "growth.safetensors")
        again = unpack(tmp_path / "growth.safetensors", base, tmp_path / "again")
        assert snapshot(again) == snapshot(grown)
        with pytest.raises(SourceError, match="was grown from base"):
            unpack(tmp_path / "growth.safetensors", first, tmp_path / "no")

    def test_pipeline_with_two_transformers(self, make_pipeline: Callable[[], Path], tmp_path: Path) -> None:
        base = two_transformers(make_pipeline())
        grown = grow(base, tmp_path / "grown", mode="suffix", blocks=1)
        pack(grown, tmp_path / "growth.safetensors")
        again = unpack(tmp_path / "growth.safetensors", base, tmp_path / "again")
        assert snapshot(again) == snapshot(grown)
        assert {name.partition(".")[0] for name in read_header(tmp_path / "growth.safetensors").tensors} == {
            "transformer",
            "transformer_2",
        }

    def test_one_component_of_two(self, make_pipeline: Callable[[], Path], tmp_path: Path) -> None:
        base = two_transformers(make_pipeline())
        grown = grow(base, tmp_path / "grown", mode="suffix", blocks=1)
        pack(grown, tmp_path / "growth.safetensors", components=["transformer_2"])
        again = snapshot(unpack(tmp_path / "growth.safetensors", base, tmp_path / "again"))
        expected = {name: value for name, value in snapshot(grown).items() if not name.startswith("transformer/")}
        expected |= {name: value for name, value in snapshot(base).items() if name.startswith("transformer/")}
        assert again == expected

    def test_pipelines_growth_on_a_component_by_itself(self, make_pipeline: Callable[[], Path], tmp_path: Path) -> None:
        base = two_transformers(make_pipeline())
        grown = grow(base, tmp_path / "grown", mode="suffix", blocks=1)
        pack(grown, tmp_path / "one.safetensors", components=["transformer"])
        again = unpack(tmp_path / "one.safetensors", base / "transformer", tmp_path / "again")
        assert snapshot(again) == snapshot(grown / "transformer")
        alone = grow(base / "transformer_2", tmp_path / "alone", mode="suffix", blocks=1)
        pack(alone, tmp_path / "alone.safetensors")
        whole = unpack(tmp_path / "alone.safetensors", base, tmp_path / "whole")
        assert snapshot(whole / "transformer") == snapshot(base / "transformer")
        weights = "diffusion_pytorch_model-00001-of-00003.safetensors"
        assert snapshot(whole / "transformer_2")[weights] == snapshot(alone)[weights]

    def test_files_that_others_wrote(self, make_ltx: Maker, tmp_path: Path) -> None:
        """A trainer may save the grown weights again: another order, another header, another name."""
        base = make_ltx()
        grown = grow(base, tmp_path / "grown", mode="suffix", blocks=1)
        tensors = dict(reversed(open_checkpoint(grown).tensors.items()))
        data = {name: b"".join(read_chunks(tensor)) for name, tensor in tensors.items()}
        (grown / "diffusion_pytorch_model.safetensors").unlink()
        header = write_header({n: (t.dtype, t.shape, t.nbytes) for n, t in tensors.items()}, {"saved": "\u00e4 again"})
        text = json.dumps(json.loads(header[8:])).encode() + b"  "
        weights = len(text).to_bytes(8, "little") + text + b"".join(data.values())
        (grown / "mine.v2.safetensors").write_bytes(weights)
        (grown / "config.json").write_bytes((grown / "config.json").read_bytes().replace(b"\n", b"\r\n"))
        pack(grown, tmp_path / "growth.safetensors")
        assert snapshot(unpack(tmp_path / "growth.safetensors", base, tmp_path / "again")) == snapshot(grown)


class TestWhatIsPacked:
    def test_only_what_is_new(self, make_ltx: Maker, tmp_path: Path) -> None:
        grown = grow(make_ltx(), tmp_path / "grown", mode="insert")
        packing = pack(grown, tmp_path / "growth.safetensors")
        record = open_checkpoint(grown).record
        assert record is not None
        held = read_header(tmp_path / "growth.safetensors").tensors
        assert set(held) == set(record.new) == set(packing.packed[""])
        assert len(held) == 24  # 3 copies of 4 modules, weight and bias
        source = open_checkpoint(grown).tensors
        for name, tensor in held.items():
            assert b"".join(read_chunks(tensor)) == b"".join(read_chunks(source[name]))

    def test_old_blocks_that_were_trained_need_the_base(self, make_ltx: Maker, tmp_path: Path) -> None:
        base = make_ltx()
        grown = grow(base, tmp_path / "grown", mode="suffix", blocks=1)
        overwrite(grown, TO_Q, b"\x01\x02")
        with pytest.raises(PlanError, match=r"have changed since\. Say --base CKPT"):
            pack(grown, tmp_path / "growth.safetensors")
        packing = pack(grown, tmp_path / "growth.safetensors", base=open_source(str(base)))
        assert TO_Q in packing.packed[""]
        assert len(packing.packed[""]) == 8 + 1
        assert snapshot(unpack(tmp_path / "growth.safetensors", base, tmp_path / "again")) == snapshot(grown)

    def test_the_wrong_base_at_packing(self, make_ltx: Maker, tmp_path: Path) -> None:
        base, other = make_ltx(), make_ltx("other")
        overwrite(other, TO_Q, b"\x01\x02")
        grown = grow(base, tmp_path / "grown")
        with pytest.raises(SourceError, match=r"other: not what .*grown was grown from; that is base"):
            prepare_pack(open_source(str(grown)), base=open_source(str(other)))

    def test_what_has_not_grown(self, make_ltx: Maker) -> None:
        with pytest.raises(SourceError, match=r"no growth\.json"):
            prepare_pack(open_source(str(make_ltx())))


class TestCard:
    def test_folder(self, make_pipeline: Callable[[], Path], tmp_path: Path) -> None:
        grown = grow(make_pipeline(), tmp_path / "grown", mode="suffix", blocks=1)
        pack(grown, tmp_path / "up", base_model="someone/LTX")
        assert sorted(path.name for path in (tmp_path / "up").iterdir()) == ["README.md", "growth.safetensors"]
        card = (tmp_path / "up" / "README.md").read_text()
        assert card.startswith(
            "---\nbase_model: someone/LTX\nbase_model_relation: adapter\nlibrary_name: diffusers\n"
            'pipeline_tag: text-to-video\ntags:\n- "modelgrow"\n- "text-to-video"\n'
            '- "LTXVideoTransformer3DModel"\n---\n'
        )
        assert "`expand mode=suffix blocks=1 stack=transformer_blocks init=zero` (modelgrow " in card
        base, new = 8 + 3 + 3 * 4 * 20, 4 * 20
        assert f"* {base + new:,} parameters, {new:,} of them new in 8 tensors" in card
        assert f"* 8 tensors here, {4 * (32 + 16)} bytes; 0 of them" in card
        assert 'load_growth(pipeline, "growth.safetensors")' in card
        assert "grow apply growth.safetensors --base someone/LTX -o grown" in card

    def test_a_base_without_a_hub_id(self, make_ltx: Maker, tmp_path: Path) -> None:
        packing = pack(grow(make_ltx(), tmp_path / "grown"), tmp_path / "up")
        assert "base_model:" not in packing.card
        assert "A growth of `base`" in packing.card

    def test_beside_a_file(self, make_ltx: Maker, tmp_path: Path) -> None:
        grown = grow(make_ltx(), tmp_path / "grown")
        pack(grown, tmp_path / "a" / "growth.safetensors")
        assert (tmp_path / "a" / "README.md").is_file()
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "README.md").write_text("mine")
        pack(grown, tmp_path / "b" / "growth.safetensors")
        assert (tmp_path / "b" / "README.md").read_text() == "mine"
        with pytest.raises(OutputError, match="exists already"):
            pack(grown, tmp_path / "a" / "growth.safetensors")
        with pytest.raises(OutputError, match="never written to"):
            pack(grown, grown / "growth.safetensors")


class TestWrongBase:
    def test_other_weights(self, make_ltx: Maker, tmp_path: Path) -> None:
        base, other = make_ltx(), make_ltx("other")
        overwrite(other, TO_Q, b"\x01\x02")
        pack(grow(base, tmp_path / "grown"), tmp_path / "growth.safetensors")
        with pytest.raises(
            SourceError, match=r"grown from base .*and other is LTXVideoTransformer3DModel sha256"
        ) as caught:
            unpack(tmp_path / "growth.safetensors", other, tmp_path / "out")
        assert len(set(str(caught.value).split("sha256-sampled:"))) == 3
        assert not (tmp_path / "out").exists()

    def test_another_architecture(self, make_ltx: Maker, tmp_path: Path) -> None:
        base, other = make_ltx(), make_ltx("other")
        config = other / "config.json"
        config.write_text(config.read_text().replace("LTXVideoT", "WanT"))
        pack(grow(base, tmp_path / "grown"), tmp_path / "growth.safetensors")
        with pytest.raises(SourceError, match="other holds no LTXVideoTransformer3DModel"):
            unpack(tmp_path / "growth.safetensors", other, tmp_path / "out")

    def test_other_files_that_differ_are_named(self, make_pipeline: Callable[[], Path], tmp_path: Path) -> None:
        base = make_pipeline()
        pack(grow(base, tmp_path / "grown"), tmp_path / "growth.safetensors")
        assert prepare_apply(read_packed(tmp_path / "growth.safetensors"), open_source(str(base))).notes == ()
        (base / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKLLTXVideo", "more": 1}')
        (base / "scheduler" / "scheduler_config.json").unlink()
        (base / "notes.txt").write_text("new")
        notes = prepare_apply(read_packed(tmp_path / "growth.safetensors"), open_source(str(base))).notes
        assert [note.partition(":")[0] for note in notes] == [
            "scheduler/scheduler_config.json",
            "vae/config.json",
            "notes.txt",
        ]


class TestDamage:
    """A growth comes from strangers: whatever it holds, the answer is an error of ours and no output."""

    @pytest.fixture
    def growth(self, make_ltx: Maker, tmp_path: Path) -> Path:
        pack(grow(make_ltx(shards=2), tmp_path / "grown", mode="suffix", blocks=1), tmp_path / "growth.safetensors")
        return tmp_path / "growth.safetensors"

    def edit(self, growth: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
        header = read_header(growth)
        data = growth.read_bytes()[8 + int.from_bytes(growth.read_bytes()[:8], "little") :]
        value = json.loads(header.metadata[KEY])
        change(value)
        tensors = {name: (t.dtype, t.shape, t.nbytes) for name, t in header.tensors.items()}
        growth.write_bytes(write_header(tensors, {**header.metadata, KEY: json.dumps(value)}) + data)
        return growth

    def refused(self, growth: Path, tmp_path: Path) -> str:
        before = snapshot(tmp_path)
        with pytest.raises(GrowError) as caught:
            unpack(growth, tmp_path / "base", tmp_path / "out")
        assert snapshot(tmp_path) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "base", "grown", "growth.safetensors"]
        return str(caught.value)

    def test_the_edit_alone_does_no_harm(self, growth: Path, tmp_path: Path) -> None:
        self.edit(growth, lambda value: None)
        assert snapshot(unpack(growth, tmp_path / "base", tmp_path / "out")) == snapshot(tmp_path / "grown")

    @pytest.mark.parametrize(
        "name",
        ["../x.safetensors", "/x.safetensors", "a/b.safetensors", ".x.safetensors", "x.bin", "", "a\\b.safetensors", 3],
    )
    def test_names_of_files(self, growth: Path, tmp_path: Path, name: Any) -> None:
        def change(value: dict[str, Any]) -> None:
            value["components"][""]["files"][0]["name"] = name

        found = self.refused(self.edit(growth, change), tmp_path)
        assert "weights can't be called" in found or "expected text, found 3" in found

    @pytest.mark.parametrize("name", ["../x", "model_index.json", "x.py", "/etc/x.safetensors.index.json", "a\nb"])
    def test_names_of_texts(self, growth: Path, tmp_path: Path, name: str) -> None:
        def change(value: dict[str, Any]) -> None:
            value["components"][""]["texts"][name] = "{}"

        assert "may not bring a file called" in self.refused(self.edit(growth, change), tmp_path)

    @pytest.mark.parametrize("name", ["..", "a/b", ".", "x-y"])
    def test_names_of_components(self, growth: Path, tmp_path: Path, name: str) -> None:
        def change(value: dict[str, Any]) -> None:
            value["components"][name] = value["components"].pop("")

        assert "no name for a component" in self.refused(self.edit(growth, change), tmp_path)

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
    def test_metadata(self, growth: Path, tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
        found = self.refused(self.edit(growth, change), tmp_path)
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
    def test_headers(self, growth: Path, tmp_path: Path, old: str, new: str) -> None:
        def change(value: dict[str, Any]) -> None:
            for file in value["components"][""]["files"]:
                file["header"] = file["header"].replace(old, new)

        self.refused(self.edit(growth, change), tmp_path)

    def test_fuzz(self, growth: Path, tmp_path: Path) -> None:
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

    def test_a_file_that_is_no_growth(self, make_ltx: Maker, tmp_path: Path) -> None:
        base = make_ltx()
        with pytest.raises(CheckpointError, match="no growth: its metadata have no key 'modelgrow'"):
            read_packed(base / "diffusion_pytorch_model.safetensors")
