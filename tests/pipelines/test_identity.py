"""Depth growth is the same function, to the bit: every architecture, stack, mode and dtype, all weights random."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, Architecture, row_of
from growths import grow
from models import save

from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.probes import random_inputs, run_model
from modelgrow.surgery import (
    Checkpoint,
    ExpandOptions,
    PlanError,
    Stack,
    anatomies,
    open_checkpoint,
)
from modelgrow.surgery.stacks import find_stacks

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
CASES = [
    pytest.param(row, stack, id=f"{row.name}-{stack.name}")
    for row in ARCHITECTURES
    for stack in anatomies()[row.class_name].stacks
]


def outputs_of(model: Any, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    name = type(model).__name__
    inputs = random_inputs(name, model.config, seed=1, device=torch.device("cpu"), dtype=dtype)
    outputs = run_model(model, inputs)
    assert outputs
    assert all(output.isfinite().all() for output in outputs)
    return outputs


def run(folder: Path, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    return outputs_of(load_model(open_checkpoint(folder), dtype=dtype), dtype)


def equal(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def depth_of(checkpoint: Checkpoint, stack: Stack) -> int:
    found = find_stacks(checkpoint, anatomies()[str(checkpoint.class_name)], stack)
    return min(place.depth for place in found)


def growths(base: Path, row: Architecture, stack: Stack) -> dict[str, ExpandOptions]:
    """One of every mode, for a stack as deep as this one, without those that must be refused."""
    name = stack.name
    options = {"insert": ExpandOptions(mode="insert", stack=name)}
    if stack.kind == "blocks":
        if depth_of(open_checkpoint(base), stack) % 2 == 0:
            options["insert-groups"] = ExpandOptions(mode="insert", group=2, stack=name)
        options["prefix"] = ExpandOptions(mode="prefix", blocks=2, stack=name)
        options["suffix"] = ExpandOptions(mode="suffix", blocks=2, stack=name)
    return {label: option for label, option in options.items() if (name, option.mode) not in row.refused}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("row", "stack"), CASES)
def test_grown_model_is_the_same_function(row: Architecture, stack: Stack, dtype: str, tmp_path: Path) -> None:
    kind = DTYPES[dtype]
    base = save(tmp_path / "base", row.class_name, row.tiny, dtype=kind)
    expected = run(base, kind)
    for label, options in growths(base, row, stack).items():
        assert equal(run(grow(base, tmp_path / label, options), kind), expected), label
        if dtype == "f32" and label != "insert-groups" and stack.kind == "blocks":
            copied = ExpandOptions(mode=options.mode, blocks=options.blocks, stack=stack.name, init="copy")
            control = grow(base, tmp_path / f"{label}-copy", copied)
            assert not equal(run(control, kind), expected), f"{label} without zeros must differ"


@pytest.mark.parametrize(
    ("row", "place", "reason"),
    [
        pytest.param(row, place, reason, id=f"{row.name}-{'-'.join(place)}")
        for row in ARCHITECTURES
        for place, reason in row.refused.items()
    ],
)
def test_what_is_refused_deserves_it(row: Architecture, place: tuple[str, str], reason: str, tmp_path: Path) -> None:
    base = save(tmp_path / "base", row.class_name, row.tiny)
    stack, mode = place
    with pytest.raises(PlanError, match=re.escape(reason)) as caught:
        grow(base, tmp_path / "grown", ExpandOptions(mode=mode, stack=stack))
    if "not possible" in str(caught.value):
        return
    options = ExpandOptions(mode=mode, stack=stack, blocks=2 if mode != "insert" else None, allow_inexact=True)
    grown = grow(base, tmp_path / "grown", options)
    assert not equal(run(grown, torch.float32), run(base, torch.float32)), "it would have been exact"


def silenced(checkpoint: Checkpoint) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every tensor that was written as zeros, and every range of rows."""
    assert checkpoint.record is not None
    for name in checkpoint.record.zeroed:
        yield name, (0, checkpoint.tensors[name].shape[0])
    for name, ranges in checkpoint.record.zeroed_rows.items():
        for rows in ranges:
            yield name, rows


def matters(model: Any, name: str, rows: tuple[int, int], expected: tuple[torch.Tensor, ...]) -> bool:
    """Whether the outputs change with those rows of a tensor."""
    part = model.state_dict()[name][rows[0] : rows[1]]
    before = part.clone()
    part.add_(0.1)
    changed = not equal(outputs_of(model, torch.float32), expected)
    part.copy_(before)
    return changed


@pytest.mark.parametrize(("row", "stack"), CASES)
def test_every_zero_is_needed(row: Architecture, stack: Stack, tmp_path: Path) -> None:
    """Noise in any tensor that is zero in a copy changes the function, unless the base's own is as dead there."""
    mode = next((mode for mode in ("suffix", "insert") if (stack.name, mode) not in row.refused), None)
    if mode is None or (stack.kind != "blocks" and mode == "suffix"):
        mode = "insert"
    if (stack.name, mode) in row.refused:
        pytest.skip("no growth of this stack is exact")
    base = save(tmp_path / "base", row.class_name, row.tiny)
    blocks = 1 if mode == "suffix" or stack.kind != "blocks" else None
    folder = grow(base, tmp_path / "grown", ExpandOptions(mode=mode, blocks=blocks, stack=stack.name))
    grown, checkpoint = load_model(open_checkpoint(folder), dtype=torch.float32), open_checkpoint(folder)
    original = load_model(open_checkpoint(base), dtype=torch.float32)
    expected = outputs_of(original, torch.float32)
    assert checkpoint.record is not None
    step = checkpoint.record.steps[-1]
    places = list(step.copied_from)
    for name, rows in silenced(checkpoint):
        prefix = next(place for place in places if name.startswith(f"{place}."))
        if stack.kind == "blocks" and prefix not in (places[0], places[-1]):
            continue  # a stack that stands in many places is alike in all of them
        if not matters(grown, name, rows, expected):
            number, inner = name.removeprefix(f"{prefix}.").split(".", 1)
            source = step.copied_from[prefix][int(number)]
            assert not matters(original, f"{prefix}.{source}.{inner}", rows, expected), f"{name} need not be zero"


def test_growth_composes(tmp_path: Path) -> None:
    row = row_of("wan")
    base = save(tmp_path / "base", row.class_name, row.tiny, shard="20KB")
    once = grow(base, tmp_path / "once", ExpandOptions(mode="insert", blocks=2))
    twice = grow(once, tmp_path / "twice", ExpandOptions(mode="prefix", blocks=1))
    assert equal(run(twice, torch.float32), run(base, torch.float32))
    record = open_checkpoint(twice).record
    assert record is not None
    assert [step.options["mode"] for step in record.steps] == ["insert", "prefix"]
    assert record.base.name == "base"
    # insert by groups of 2 makes blocks 2 and 5 new; the prefix makes 0 new and moves those to 3 and 6
    assert {name.split(".")[1] for name in record.new} == {"0", "3", "6"}
    assert {name.split(".")[1] for name in record.zeroed} == {"0", "3", "6"}
