"""A growth by itself: out of a grown folder and back onto its base, byte for byte, and what is refused."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from growths import grow, overwrite, pack, snapshot, unpack

from modelgrow.surgery import (
    OutputError,
    PlanError,
    SourceError,
    open_checkpoint,
    open_source,
)
from modelgrow.surgery.header import read_header, write_header
from modelgrow.surgery.pack import prepare_pack
from modelgrow.surgery.packed import read_packed
from modelgrow.surgery.readback import read_chunks
from modelgrow.surgery.unpack import prepare_apply

Maker = Callable[..., Path]
TO_Q = "transformer_blocks.1.attn1.to_q.weight"


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
        tensors = dict(reversed(list(open_checkpoint(grown).tensors.items())))
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
        assert "base_model:" not in packing.card()
        assert "# A growth of base\n" in packing.card()

    def test_beside_a_file(self, make_ltx: Maker, tmp_path: Path) -> None:
        grown = grow(make_ltx(), tmp_path / "grown")
        pack(grown, tmp_path / "a" / "mine.safetensors")
        assert "grow apply mine.safetensors --base base" in (tmp_path / "a" / "README.md").read_text()
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "README.md").write_text("mine")
        pack(grown, tmp_path / "b" / "growth.safetensors")
        assert (tmp_path / "b" / "README.md").read_text() == "mine"
        with pytest.raises(OutputError, match="exists already"):
            pack(grown, tmp_path / "a" / "mine.safetensors")
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
        (base / "README.md").write_text("a card that came later")
        (base / "transformer" / "README.md").write_text("rewritten since")
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
