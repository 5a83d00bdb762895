"""What a folder may hold: index, shards, config and record, links and special files; and what is said of the rest."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelgrow.surgery import CheckpointError, GrowError, SourceError, inspect, open_checkpoint, open_source
from modelgrow.surgery.header import write_header

Maker = Callable[..., Path]
INDEX = "diffusion_pytorch_model.safetensors.index.json"
FIRST = "diffusion_pytorch_model-00001-of-00002.safetensors"


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(GrowError) as caught:
        open_checkpoint(folder, **options)
    assert isinstance(caught.value, CheckpointError | SourceError)
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.fixture
def sharded(make_ltx: Maker) -> Path:
    return make_ltx(shards=2)


def edit(path: Path, change: Callable[[Any], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


class TestIndex:
    def test_all_of_it(self, sharded: Path) -> None:
        checkpoint = open_checkpoint(sharded)
        assert len(checkpoint.tensors) == 2 + 3 * 8
        assert len(checkpoint.files) == 2
        assert checkpoint.metadata == {"format": "pt", "made": "by hand"}
        assert open_checkpoint(sharded / INDEX).tensors == checkpoint.tensors

    def test_of_more_tensors_than_any_model_has(self, sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("modelgrow.surgery.shards.MAX_INDEXED", 2 + 3 * 8)
        open_checkpoint(sharded)
        monkeypatch.setattr("modelgrow.surgery.shards.MAX_INDEXED", 2 + 3 * 8 - 1)
        assert "names more than 25 tensors" in refusal(sharded)

    @pytest.mark.parametrize(
        ("name", "fault"),
        [
            ("../base/" + FIRST, "a shard is a .safetensors file in the same folder"),
            ("/etc/hostname", "a shard is"),
            ("..\\x.safetensors", "a shard is"),
            ("C:x.safetensors", "a shard is"),
            ("x.safetensors\0", "a shard is"),
            ("x.bin", "a shard is"),
            ("", "a shard is"),
            (None, "a shard is"),
            (["x.safetensors"], "a shard is"),
            ("missing.safetensors", "No such file"),
            (FIRST.upper(), "a shard is"),
            (FIRST.replace("diff", "Diff"), "No such file"),
            ("n" * 300 + ".safetensors", "File name too long"),
            ("\x1b[2J.safetensors", r"\x1b[2J.safetensors"),
        ],
    )
    def test_names_of_shards(self, sharded: Path, name: Any, fault: str) -> None:
        # Names are opened in their order; this one comes first, or is the only one.
        edit(sharded / INDEX, lambda index: index.update(weight_map={"scale": name}))
        assert fault in refusal(sharded)

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", "expected '{'"),
            ("[]", "expected '{'"),
            ("{}", "weight_map is missing"),
            ('{"weight_map": []}', "not an object"),
            ('{"weight_map": {}}', "names no tensor"),
            ('{"weight_map": {"a": "x.safetensors",}}', "expected a string"),
            ('{"weight_map": {}, "weight_map": {}}', "given twice"),
            ('{"weight_map": {"a": "x.safetensors"}} x', "something follows"),
            ('{"weight_map": {"\\ud800": "x.safetensors"}}', "half a surrogate"),
            ('{"more": ' + "[" * 100_000, "nested too deeply"),
            ('{"more": [' + "[]," * 400_000, "a value of more than 1000000 bytes"),
        ],
    )
    def test_damage(self, sharded: Path, text: str, fault: str) -> None:
        (sharded / INDEX).write_text(text)
        message = refusal(sharded)
        assert message.startswith(str(sharded / INDEX))
        assert fault in message

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
    def test_encodings(self, sharded: Path, encoding: str) -> None:
        (sharded / INDEX).write_text((sharded / INDEX).read_text(), encoding=encoding)
        assert "not valid JSON" in refusal(sharded)

    def test_tensors_listed_wrongly(self, sharded: Path) -> None:
        good = (sharded / INDEX).read_text()
        edit(sharded / INDEX, lambda index: index["weight_map"].pop("scale"))
        assert "holds 'scale', which the index does not list" in refusal(sharded)
        (sharded / INDEX).write_text(good)
        edit(sharded / INDEX, lambda index: index["weight_map"].update(scale=FIRST))
        assert "'scale' should be in" in refusal(sharded) or "'scale' is in" in refusal(sharded)
        (sharded / INDEX).write_text(good)
        edit(sharded / INDEX, lambda index: index["weight_map"].update(more=FIRST))
        assert f"'more' should be in {FIRST}, and is not there" in refusal(sharded)

    @pytest.mark.parametrize("total", [-1, 0, 10**30, 1.5, "many", None, {"a": {"b": []}}])
    def test_total_size_is_not_used(self, sharded: Path, total: Any) -> None:
        edit(sharded / INDEX, lambda index: index.update(metadata={"total_size": total}, more=[total]))
        assert len(open_checkpoint(sharded).tensors) == 26

    def test_stale_shards_are_left_alone(self, sharded: Path) -> None:
        (sharded / "diffusion_pytorch_model-00003-of-00003.safetensors").write_bytes(b"not even one")
        assert len(open_checkpoint(sharded).files) == 2

    def test_a_huge_index_is_refused_before_it_is_read(self, sharded: Path) -> None:
        os.truncate(sharded / INDEX, 10**12)
        assert "1000000000000 bytes long" in refusal(sharded)


class TestConfig:
    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", "it is empty"),
            ("[]", "expected a JSON object"),
            ("null", "expected a JSON object"),
            ('{"_class_name": 5}', "_class_name is 5, expected the name of a class"),
            ('{"_class_name": ["A"]}', "expected the name of a class"),
            ('{"architectures": "A"}', "expected a list of class names"),
            ('{"architectures": [1]}', "expected a list of class names"),
            ('{"x": NaN}', "NaN is not a JSON number"),
            ('{"x": 1e999}', "more than a number can be"),
            ('{"x": ' + "9" * 5000 + "}", "a number of 5000 digits"),
            ('{"x": "\\ud800"}', "half a surrogate"),
            ('{"\\udfff": 1}', "half a surrogate"),
            ('{"x": ' + "[" * 200 + "]" * 200 + "}", "nested too deeply"),
            ('{"x": ' + "[" * 100_000, "nested too deeply"),
            ('{"x": 1, "x": 1}', "given twice"),
            ("\ufeff{}", "byte order mark"),
        ],
    )
    def test_damage(self, make_ltx: Maker, text: str, fault: str) -> None:
        folder = make_ltx()
        (folder / "config.json").write_text(text)
        message = refusal(folder)
        assert message.startswith(str(folder / "config.json"))
        assert fault in message

    @pytest.mark.parametrize(
        "text", ['{"architectures": null}', '{"architectures": []}', '{"_class_name": null}', "{}"]
    )
    def test_no_class(self, make_ltx: Maker, text: str) -> None:
        folder = make_ltx()
        (folder / "config.json").write_text(text)
        assert open_checkpoint(folder).class_name is None

    @pytest.mark.parametrize("count", [10**15, 10**90, -1, 1, 2.0, "2", True, [2]])
    def test_a_count_that_lies_in_an_unknown_architecture(self, make_ltx: Maker, count: Any) -> None:
        folder = make_ltx(depth=2)
        (folder / "config.json").write_text(json.dumps({"num_layers": 2}))
        assert inspect(open_source(str(folder))).components[0].stacks[0].depth == 2
        (folder / "config.json").write_text(json.dumps({"num_layers": count}))
        with pytest.raises(CheckpointError, match="are numbered 0-1; one of them"):
            inspect(open_source(str(folder)))

    def test_missing_and_huge(self, make_ltx: Maker, tmp_path: Path) -> None:
        folder = make_ltx()
        os.truncate(folder / "config.json", 10**12)
        assert "expected at most 16000000" in refusal(folder)
        (folder / "config.json").unlink()
        assert open_checkpoint(folder).class_name is None  # enough to look at; see test_source for growth
        assert f"{tmp_path / 'x.json'}: no such file" in refusal(folder, config=tmp_path / "x.json")


class TestFiles:
    @pytest.mark.parametrize("name", ["config.json", "growth.json", "diffusion_pytorch_model.safetensors"])
    def test_special_files(self, make_ltx: Maker, name: str) -> None:
        path = make_ltx() / name
        path.unlink(missing_ok=True)
        path.mkdir()
        assert refusal(path.parent).startswith(f"{path}: not a regular file but a folder")
        path.rmdir()
        os.mkfifo(path)
        assert f"{path}: not a regular file but a pipe" in refusal(path.parent)
        path.unlink()
        path.symlink_to("nowhere")
        assert f"{path}: a link that leads nowhere" in refusal(path.parent)
        path.unlink()
        path.symlink_to(name)
        assert f"{path}: a link that leads nowhere" in refusal(path.parent)
        path.unlink()
        path.symlink_to("/dev/zero")
        assert f"{path}: links out of its folder, to /dev/zero" in refusal(path.parent)

    @pytest.mark.parametrize("name", ["config.json", INDEX, FIRST])
    def test_links_out_of_the_folder(self, sharded: Path, tmp_path: Path, name: str) -> None:
        outside = tmp_path / "outside"
        (sharded / name).rename(outside)
        (sharded / name).symlink_to(outside)
        assert f"{sharded / name}: links out of its folder, to {outside}" in refusal(sharded)
        (sharded / name).unlink()
        outside.rename(sharded / "inside")
        (sharded / name).symlink_to("inside")
        assert len(open_checkpoint(sharded).tensors) == 26
        (sharded / name).unlink()
        (sharded / name).hardlink_to(sharded / "inside")
        assert len(open_checkpoint(sharded).tensors) == 26

    def test_pickles_are_never_opened(self, make_ltx: Maker) -> None:
        folder = make_ltx()
        weights = folder / "diffusion_pytorch_model.safetensors"
        for suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
            pickled = weights.rename(weights.with_suffix(suffix))
            assert "weights_only=True" in refusal(folder)
            assert "save_pretrained" in refusal(pickled)
            pickled.rename(weights)
        (folder / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02.")
        assert len(open_checkpoint(folder).files) == 1

    @pytest.mark.parametrize("variant", ["", "../x", "/etc", "a/b", "**", "[", "\0", "x y"])
    def test_variants_are_words(self, make_ltx: Maker, variant: str) -> None:
        assert "expected a word such as fp16" in refusal(make_ltx(), variant=variant)

    def test_what_can_not_be_told(self, sharded: Path) -> None:
        (sharded / INDEX).rename(sharded / "kept")
        for name in ("a", "b"):
            (sharded / f"{name}.safetensors").write_bytes(b"")
        for shard in sharded.glob("*-of-*"):
            shard.rename(shard.with_suffix(".kept"))
        assert "can't tell which of its files to open" in refusal(sharded)
        for shard in sharded.glob("*-of-*"):
            shard.rename(shard.with_suffix(".safetensors"))
        (sharded / "diffusion_pytorch_model.safetensors").write_bytes(b"")
        (sharded / "kept").rename(sharded / INDEX)
        assert "holds both" in refusal(sharded)
        assert "a JSON file, not weights" in refusal(sharded / "config.json")

    def test_shards_without_their_index(self, sharded: Path) -> None:
        """One of them opens, has a config beside it, and is half of a model."""
        (sharded / INDEX).unlink()
        first, *others = sorted(sharded.glob("*-of-*"))
        assert "shards. Name their folder, which must hold all of them and their index" in refusal(sharded)
        assert "shards. Name their folder" in refusal(first)
        for other in others:
            other.unlink()
        assert "shards. Name their folder" in refusal(sharded)
        first.rename(first.with_name("model-00001-of-00001.safetensors"))
        assert open_checkpoint(sharded).tensors

    def test_a_variant_that_is_not_there(self, sharded: Path) -> None:
        assert f"{sharded}: has no weights of --variant fp16; it has: diffusion_" in refusal(sharded, variant="fp16")

    def test_shards_of_a_variant_alone(self, sharded: Path) -> None:
        """As where a variant is one file: what there is, is meant."""
        expected = open_checkpoint(sharded).tensors.keys()
        index = (sharded / INDEX).read_text().replace("model-0", "model.fp16-0")
        (sharded / INDEX).unlink()
        (sharded / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text(index)
        for shard in sharded.glob("*-of-*"):
            shard.rename(shard.with_name(shard.name.replace("model-0", "model.fp16-0")))
        assert open_checkpoint(sharded).tensors.keys() == open_checkpoint(sharded, variant="fp16").tensors.keys()
        assert open_checkpoint(sharded).tensors.keys() == expected
        (sharded / "other.safetensors").write_bytes(b"")
        assert "shards. Name their folder" in refusal(sharded)

    @pytest.mark.parametrize(
        ("name", "what"),
        [("model.CKPT", "never opened here"), ("model.gguf", "not a format that is opened here")],
    )
    def test_only_other_weights(self, sharded: Path, name: str, what: str) -> None:
        for path in sharded.glob("*.safetensors*"):
            path.unlink()
        (sharded / name).write_bytes(b"")
        assert f"only {name}: " in refusal(sharded)
        assert what in refusal(sharded)

    def test_a_folder_that_may_not_be_listed(self, sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: object) -> list[str]:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "listdir", refuse)
        assert refusal(sharded) == f"{sharded}: can't be listed: Permission denied"


STEP: dict[str, Any] = {
    "operation": "expand",
    "options": {"mode": "suffix"},
    "index_map": {"transformer_blocks": [0, 1]},
    "copied_from": {"transformer_blocks": {"2": 1}},
    "new": ["transformer_blocks.2.attn1.to_q.weight"],
    "zeroed": [],
    "zeroed_rows": {"x": [[0, 1]]},
    "changed": [],
    "rebuilt": {"y": [["z", 0, 1]]},
    "config_before": {"num_layers": 2},
    "config_added": [],
    "input_fingerprint": "f",
    "made_with": "m",
}


class TestRecord:
    def write(self, folder: Path, step: Any, **other: Any) -> None:
        base = {"class": "LTXVideoTransformer3DModel", "name": "b", "fingerprint": "f"}
        (folder / "growth.json").write_text(json.dumps({"format": 1, "base": base, "steps": [step], **other}))

    def test_what_is_damaged_below_is_good(self, make_ltx: Maker) -> None:
        folder = make_ltx()
        self.write(folder, STEP)
        record = open_checkpoint(folder).record
        assert record is not None
        assert record.steps[0].copied_from == {"transformer_blocks": {2: 1}}
        assert record.steps[0].zeroed_rows == {"x": ((0, 1),)}

    @pytest.mark.parametrize(
        ("key", "values"),
        [
            ("operation", [1, None, ["expand"]]),
            ("options", [None, [], [["mode", "suffix"]], "x"]),
            ("index_map", [None, [], {"a": 1}, {"a": ["1"]}, {"a": [1.0]}, {"a": [True]}, {"a": [2**63]}]),
            (
                "copied_from",
                [None, {"a": []}, {"a": {"x": 1}}, {"a": {"\u0661": 1}}, {"a": {"1.0": 1}}, {"a": {"1": "1"}}],
            ),
            ("new", [None, "x", {"x": 1}, [1], [None], [["x"]]]),
            ("zeroed", [None, "x", [1]]),
            ("zeroed_rows", [None, [], {"a": 1}, {"a": [1]}, {"a": [[1]]}, {"a": [[1, 2, 3]]}, {"a": [["0", 1]]}]),
            ("changed", [None, "x", [1]]),
            ("rebuilt", [None, [], {"a": 1}, {"a": [["z", 0]]}, {"a": [[None, 0, 1]]}, {"a": [["z", 0, 1.0]]}]),
            ("config_before", [None, [], "x"]),
            ("config_added", [None, "x", [1]]),
            ("input_fingerprint", [None, 1]),
            ("made_with", [None, []]),
        ],
    )
    def test_every_field(self, make_ltx: Maker, key: str, values: list[Any]) -> None:
        folder = make_ltx()
        for value in values:
            self.write(folder, {**STEP, key: value})
            assert f"{folder / 'growth.json'}: not a growth record: " in refusal(folder)
        self.write(folder, {name: value for name, value in STEP.items() if name != key})
        assert repr(key) in refusal(folder)

    @pytest.mark.parametrize(
        "other",
        [
            {"base": None},
            {"base": {"class": "A"}},
            {"base": {"class": "A", "name": "b", "fingerprint": 1}},
            {"base": {"class": "A", "name": "b", "fingerprint": "f", "more": "x"}},
            {"steps": None},
            {"steps": {"a": 1}},
            {"steps": [1]},
            {"steps": "x"},
            {"format": 2},
            {"format": "1"},
            {"format": None},
        ],
    )
    def test_the_rest(self, make_ltx: Maker, other: dict[str, Any]) -> None:
        folder = make_ltx()
        self.write(folder, STEP, **other)
        assert str(folder / "growth.json") in refusal(folder)


@pytest.mark.parametrize(("number", "is_refused"), [("01", True), ("+1", True), ("02", False), ("1a", False)])
def test_a_block_under_two_numbers(make_ltx: Maker, number: str, *, is_refused: bool) -> None:
    """Of an architecture that nobody has declared."""
    folder = make_ltx()
    names = ["layers.0.w", "layers.1.w", f"layers.{number}.w"]
    header = write_header({name: ("F32", (1,), 4) for name in names}, {})
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(header + bytes(12))
    (folder / "config.json").write_text('{"_class_name": "Other", "num_layers": 2}')
    if is_refused:
        with pytest.raises(CheckpointError, match="is of a block that is there as 1 too"):
            inspect(open_source(str(folder)))
    else:
        assert inspect(open_source(str(folder))).components[0].stacks[0].depth == 2
