"""What a user's declaration must say, and the default length of a pipeline's clips: there and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelgrow.surgery import (
    AnatomyError,
    Checkpoint,
    CheckpointError,
    PlanError,
    execute,
    open_checkpoint,
    open_source,
)
from modelgrow.surgery.anatomy_files import parse_anatomy
from modelgrow.surgery.clip_default import prepare_extend
from modelgrow.surgery.extend_frames import ExtendOptions, plan_extend_frames
from modelgrow.surgery.positions import check_frames
from modelgrow.surgery.shrink import prepare_shrink


def checkpoint_of(class_name: str, config: Any) -> Checkpoint:
    return Checkpoint(path=Path("model"), tensors={}, config={"_class_name": class_name, **config})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('vae = "4k+1"', 'vae = "4n+1"', "vae is '4n.1'"),
        ('kind = "rope"', 'kind = "turn"', "kind is 'turn'"),
        ('method = "riflex"', 'method = "best"', "method 'best' is not one of"),
        ('rope_dim = "d // 4"\n', "", "rope_dim does not say"),
        ("trained_frames = 49", 'trained_frames = "49"', "must be int"),
    ],
)
def test_a_declaration_is_checked(old: str, new: str, message: str) -> None:
    text = """
class = "X"
family = "X 1"
text = "nowhere"
[frames]
unit = "latent frames"
note = "none"
kind = "rope"
vae = "4k+1"
trained_frames = 49
method = "riflex"
methods = ["none", "riflex"]
rope_dim = "d // 4"
[[stacks]]
name = "blocks"
count_keys = ["num_layers"]
zero = ["out"]
"""
    good = parse_anatomy(text, where="x.toml")
    check_frames(good.frames, "x.toml")
    config = {"attention_head_dim": 32}
    plan = plan_extend_frames(checkpoint_of("X", config), good, ExtendOptions(to=65))
    assert plan.config_edits["_class_name"] == "GrownX"
    with pytest.raises(CheckpointError, match=r"attention_head_dim is \[None\]"):
        plan_extend_frames(checkpoint_of("X", {}), good, ExtendOptions(to=65))
    with pytest.raises(AnatomyError, match=message):
        parse_anatomy(text.replace(old, new), where="x.toml")


def test_an_undeclared_one_is_told_what_to_declare() -> None:
    anatomy = parse_anatomy(
        'class = "X"\nfamily = "X"\ntext = "no"\n[frames]\nunit = "f"\nnote = "n"\n'
        '[[stacks]]\nname = "b"\ncount_keys = ["n"]\nzero = ["o"]\n',
        where="x.toml",
    )
    with pytest.raises(PlanError, match=r"Declare kind, vae, trained_frames and methods.*--anatomy FILE"):
        plan_extend_frames(checkpoint_of("X", {}), anatomy, ExtendOptions(to=65))


def _settings(folder: Path) -> Any:
    return json.loads((folder / "generation.json").read_text())


@pytest.mark.parametrize("before", [{"num_frames": 25, "fps": 8}, {"fps": 8}, None], ids=str)
def test_the_default_length_and_the_way_back(
    before: dict[str, int] | None, make_pipeline: Callable[[], Path], tmp_path: Path
) -> None:
    """generation.json says how long clips are: that is what the base was trained on, and then what is wanted."""
    base = make_pipeline()
    if before is not None:
        (base / "generation.json").write_text(json.dumps(before))
    job = prepare_extend(open_source(str(base)), ExtendOptions(to=320, trainable=True))
    out = execute(job, tmp_path / "out")
    assert _settings(out) == {**(before or {}), "num_frames": 320}
    step = open_checkpoint(out / "transformer").record.steps[0]  # type: ignore[union-attr]
    assert step.options["base_frames"] == (25 if before and "num_frames" in before else 257)
    assert step.new == ("frame_rope.log_scale",)
    index = json.loads((out / "model_index.json").read_text())
    assert index["transformer"] == ["modelgrow.pipelines", "GrownLTXVideoTransformer3DModel"]
    back = execute(prepare_shrink(open_source(str(out))), tmp_path / "back")
    if before is None:
        assert not (back / "generation.json").exists()
    else:
        assert _settings(back) == before
    for name in ("model_index.json", "transformer/config.json"):
        assert json.loads((back / name).read_text()) == json.loads((base / name).read_text())
    tensors = [open_checkpoint(folder / "transformer").tensors for folder in (base, back)]
    assert tensors[0].keys() == tensors[1].keys()


def test_a_damaged_default_is_told(make_pipeline: Callable[[], Path]) -> None:
    base = make_pipeline()
    (base / "generation.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"generation\.json"):
        prepare_extend(open_source(str(base)), ExtendOptions(to=128))
