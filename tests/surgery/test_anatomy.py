"""Architectures are strict data, and a checkpoint must fit the one it names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from architectures import ARCHITECTURES

from modelgrow.surgery import (
    Anatomy,
    AnatomyError,
    Checkpoint,
    CheckpointError,
    ExpandOptions,
    Plan,
    SourceError,
    anatomies,
    execute,
    open_checkpoint,
    open_source,
    plan_expand,
    prepare,
)
from modelgrow.surgery.anatomy_files import parse_anatomy

GOOD = """
class = "X"
family = "X 1"
text = "nowhere"
[frames]
unit = "frames"
note = "none"
[[stacks]]
name = "blocks"
count_keys = ["num_layers"]
zero = ["out"]
"""


def test_good_is_good() -> None:
    anatomy = parse_anatomy(GOOD, where="x.toml")
    assert anatomy.class_name == "X"
    assert anatomy.stacks[0].zero == ("out",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('text = "nowhere"', 'texts = "nowhere"', "unknown key 'texts'"),
        ('text = "nowhere"', "", "'text' is missing"),
        ('text = "nowhere"', "text = 3", "must be str, found 3"),
        ('zero = ["out"]', 'zero = ["out"]\nkeep = ["in"]', "unknown key 'keep'"),
        ('zero = ["out"]', "zero = []", "zero and gates are empty"),
        ('zero = ["out"]', 'zero = "out"', "must be a list"),
        ('zero = ["out"]', "zero = [1]", "must be a list of str"),
        ('count_keys = ["num_layers"]', "count_keys = []", "count_keys is empty"),
        ('zero = ["out"]', 'kind = "unet"\nzero = ["out"]', "kind is 'unet'"),
        ('zero = ["out"]', 'gates = [{module = "n", chunks = 2, zero = [2]}]', "some of its chunks 0 to 1"),
        ('zero = ["out"]', 'zero = ["out"]\nrenumber = [{key = "a", kind = "all"}]', "unknown kind 'all'"),
        ('zero = ["out"]', 'zero = ["out"]\nlast = {module = "n"}', "'inner_module' is missing"),
        ('zero = ["out"]', 'zero = ["out"]\nrefusals = [{reason = "x", when = 1}]', "must be a table"),
        ('unit = "frames"', 'unit = "frames"\nlimit = 3', "unknown key 'limit'"),
        ("[[stacks]]", "[stacks]", "at least one"),
        ('class = "X"', 'class = "X', "not valid TOML"),
    ],
)
def test_mistakes_are_errors(old: str, new: str, message: str) -> None:
    with pytest.raises(AnatomyError) as caught:
        parse_anatomy(GOOD.replace(old, new), where="x.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("x.toml")


def test_every_architecture_is_tested() -> None:
    assert {row.class_name for row in ARCHITECTURES} == set(anatomies())


def test_unknown_stack_is_named() -> None:
    with pytest.raises(AnatomyError, match="has no stack 'single'; it has: blocks"):
        anatomies()["WanTransformer3DModel"].stack("single")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"num_layers": 4}, "num_layers = 4, the tensors hold blocks 0-2"),
        ({"num_layers": 2}, "num_layers = 2, the tensors hold blocks 0-2"),
        ({"num_layers": "3"}, "num_layers = '3', expected a number"),
        ({"num_layers": True}, "num_layers = True, expected a number"),
        ({"num_layers": None}, "num_layers = None"),
    ],
)
def test_config_that_does_not_fit(make_ltx: Callable[..., Path], edit: dict[str, object], message: str) -> None:
    folder = make_ltx()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | edit))
    checkpoint = open_checkpoint(folder)
    with pytest.raises(CheckpointError) as caught:
        plan_expand(checkpoint, anatomies()["LTXVideoTransformer3DModel"], ExpandOptions(mode="suffix"))
    assert message in str(caught.value)


def test_another_layout_is_recognised_as_such(make_ltx: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(make_ltx())
    wan = anatomies()["WanTransformer3DModel"]
    with pytest.raises(CheckpointError, match="not in diffusers' layout"):
        plan_expand(checkpoint, wan, ExpandOptions(mode="suffix"))


OWN = """
class = "FooTransformer"
family = "Foo"
text = "attn2"
[frames]
unit = "frames"
note = "none"
[[stacks]]
name = "transformer_blocks"
count_keys = ["num_layers"]
zero = ["attn1.to_out.0", "attn2.to_out.0", "ff.net.2"]
"""


def test_a_declaration_of_ones_own(make_ltx: Callable[..., Path], tmp_path: Path) -> None:
    """A class that nobody declared grows with a file that does, and not without."""
    folder = make_ltx()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_class_name": "FooTransformer"}))
    (tmp_path / "foo.toml").write_text(OWN)
    source = open_source(str(folder))

    def plan(checkpoint: Checkpoint, anatomy: Anatomy) -> Plan:
        return plan_expand(checkpoint, anatomy, ExpandOptions(mode="suffix", blocks=2))

    with pytest.raises(SourceError, match="nothing here that can grow"):
        prepare(source, plan)
    grown = execute(prepare(source, plan, known=anatomies((tmp_path / "foo.toml",))), tmp_path / "grown")
    assert json.loads((grown / "config.json").read_text())["num_layers"] == 5
    assert "FooTransformer" not in anatomies()


def test_a_declaration_of_ones_own_comes_before_ours(tmp_path: Path) -> None:
    (tmp_path / "ltx.toml").write_text(OWN.replace("FooTransformer", "LTXVideoTransformer3DModel"))
    assert anatomies((tmp_path / "ltx.toml",))["LTXVideoTransformer3DModel"].family == "Foo"
    assert anatomies()["LTXVideoTransformer3DModel"].family == "LTX-Video"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"class = 3"])
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AnatomyError, match=r"own\.toml"):
        anatomies((path,))
