"""Depth growth is the same function, to the bit: every architecture, mode and dtype, all weights random."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, Architecture
from models import save

from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.probes import random_inputs
from modelgrow.surgery import ExpandOptions, execute, open_checkpoint, open_source, plan_expand, prepare

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
MODES = {
    "insert": ExpandOptions(mode="insert"),
    "insert-groups": ExpandOptions(mode="insert", blocks=4, group=2),
    "prefix": ExpandOptions(mode="prefix", blocks=2),
    "suffix": ExpandOptions(mode="suffix", blocks=2),
}


def grow(base: Path, output: Path, options: ExpandOptions) -> Path:
    job = prepare(open_source(str(base)), lambda checkpoint, anatomy: plan_expand(checkpoint, anatomy, options))
    return execute(job, output)


def run(folder: Path, class_name: str, dtype: torch.dtype) -> torch.Tensor:
    model = load_model(open_checkpoint(folder), dtype=dtype)
    inputs = random_inputs(class_name, model.config, seed=1, device=torch.device("cpu"), dtype=dtype)
    with torch.no_grad():
        output = model(**inputs, return_dict=False)[0]
    assert isinstance(output, torch.Tensor)
    assert output.isfinite().all()
    return output


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", ARCHITECTURES, ids=lambda row: row.name)
def test_grown_model_is_the_same_function(row: Architecture, dtype: str, tmp_path: Path) -> None:
    kind = DTYPES[dtype]
    base = save(tmp_path / "base", row.class_name, row.tiny, dtype=kind)
    expected = run(base, row.class_name, kind)
    for name, options in MODES.items():
        grown = run(grow(base, tmp_path / name, options), row.class_name, kind)
        assert torch.equal(grown, expected), name
    for mode in ("insert", "prefix", "suffix"):
        control = grow(base, tmp_path / f"{mode}-copy", ExpandOptions(mode=mode, blocks=4, init="copy"))
        assert not torch.equal(run(control, row.class_name, kind), expected), f"{mode} without zeros must differ"


def test_only_zeroed_tensors_matter_and_each_of_them_does(tmp_path: Path) -> None:
    """Every tensor that the anatomy zeroes is needed: noise in any one of them changes the function."""
    for row in ARCHITECTURES:
        base = save(tmp_path / row.name, row.class_name, row.tiny)
        expected = run(base, row.class_name, torch.float32)
        folder = grow(base, tmp_path / f"{row.name}-grown", ExpandOptions(mode="suffix", blocks=1))
        checkpoint = open_checkpoint(folder)
        assert checkpoint.record is not None
        model = load_model(checkpoint, dtype=torch.float32)
        inputs = random_inputs(row.class_name, model.config, seed=1, device=torch.device("cpu"), dtype=torch.float32)
        state = model.state_dict()
        for name in checkpoint.record.zeroed:
            state[name].fill_(0.1)
            with torch.no_grad():
                assert not torch.equal(model(**inputs, return_dict=False)[0], expected), f"{row.name}: {name}"
            state[name].zero_()
        with torch.no_grad():
            assert torch.equal(model(**inputs, return_dict=False)[0], expected)


def test_growth_composes(tmp_path: Path) -> None:
    row = ARCHITECTURES[0]
    base = save(tmp_path / "base", row.class_name, row.tiny, shard="20KB")
    once = grow(base, tmp_path / "once", ExpandOptions(mode="insert", blocks=2))
    twice = grow(once, tmp_path / "twice", ExpandOptions(mode="prefix", blocks=1))
    assert torch.equal(run(twice, row.class_name, torch.float32), run(base, row.class_name, torch.float32))
    record = open_checkpoint(twice).record
    assert record is not None
    assert [step.options["mode"] for step in record.steps] == ["insert", "prefix"]
    assert record.base.name == "base"
    # insert by groups of 2 makes blocks 2 and 5 new; the prefix makes 0 new and moves those to 3 and 6
    assert {name.split(".")[1] for name in record.new} == {"0", "3", "6"}
    assert {name.split(".")[1] for name in record.zeroed} == {"0", "3", "6"}
