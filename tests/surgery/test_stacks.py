"""Finding a stack's blocks: at one place or in many, and only where config and tensors agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelgrow.surgery import (
    Checkpoint,
    CheckpointError,
    ExpandOptions,
    PlanError,
    Stack,
    Tensor,
    anatomies,
    plan_expand,
)
from modelgrow.surgery.stacks import find_stacks, group_by_prefix, map_counts, ranges

ANATOMY = anatomies()["WanTransformer3DModel"]
FAMILY = Stack(name="motion", path="*.motion.*.blocks", count_keys=("per_block", "mid"), zero=("out",))


def fake(names: list[str], **config: Any) -> Checkpoint:
    tensors = {name: Tensor(dtype="F32", shape=(1,), file=Path("w"), offset=0, nbytes=4) for name in names}
    return Checkpoint(path=Path("fake"), tensors=tensors, config={"_class_name": "UNet", **config})


NAMES = [
    "conv_in.weight",
    "down.0.motion.0.blocks.0.out.weight",
    "down.0.motion.0.blocks.1.out.weight",
    "down.0.motion.1.blocks.0.out.weight",
    "down.0.motion.1.blocks.1.out.weight",
    "mid.motion.0.blocks.0.out.weight",
    "motion.0.blocks.0.out.weight",  # nothing stands before "motion", so the path does not match
    "mid.motion.0.blocks.00.out.weight",  # not a block's number
]


def test_a_path_with_stars_finds_every_place() -> None:
    found = find_stacks(fake(NAMES, per_block=2, mid=1), ANATOMY, FAMILY)
    assert {place.prefix: place.depth for place in found} == {
        "down.0.motion.0.blocks": 2,
        "down.0.motion.1.blocks": 2,
        "mid.motion.0.blocks": 1,
    }
    assert found[0].blocks[1] == {"out.weight": "down.0.motion.0.blocks.1.out.weight"}


@pytest.mark.parametrize("config", [{"per_block": [2, 2], "mid": 1}, {"per_block": [[2, 2], [1]], "mid": None}])
def test_counts_may_be_nested(config: dict[str, Any]) -> None:
    assert len(find_stacks(fake(NAMES, **config), ANATOMY, FAMILY)) == 3


@pytest.mark.parametrize("config", [{"per_block": 2, "mid": 3}, {"per_block": [2, "2"], "mid": 1}, {"mid": 1}])
def test_places_that_config_does_not_count(config: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"config.json"):
        find_stacks(fake(NAMES, **config), ANATOMY, FAMILY)


@pytest.mark.parametrize("number", ["01", "-1", "+1", " 1", "1_0", "\u0661", "1000000000"])
def test_a_number_that_would_be_passed_by_is_refused(number: str) -> None:
    """Left alone, the tensor would keep its name where its block gets another number."""
    stack = Stack(name="blocks", count_keys=("num_layers",), zero=("out",))
    names = ["blocks.0.out.weight", "blocks.1.out.weight", f"blocks.{number}.more"]
    with pytest.raises(CheckpointError, match="does not number its block as 0, 1, 2"):
        find_stacks(fake(names, num_layers=2), ANATOMY, stack)


@pytest.mark.parametrize("name", ["blocks.weight", "blocks", "blocks.", "blocks.a1.x", "b.blocks.01.x", "blocks.x.01"])
def test_names_that_number_no_block_are_let_be(name: str) -> None:
    stack = Stack(name="blocks", count_keys=("num_layers",), zero=("out",))
    assert find_stacks(fake(["blocks.0.out.weight", name], num_layers=1), ANATOMY, stack)[0].depth == 1


def test_no_blocks_counted_and_none_there() -> None:
    stack = Stack(name="blocks", count_keys=("num_layers",), zero=("out",))
    assert find_stacks(fake(["x"], num_layers=0), ANATOMY, stack) == ()
    with pytest.raises(CheckpointError, match="not in diffusers' layout"):
        find_stacks(fake(["x"], num_layers=1), ANATOMY, stack)


def test_a_default_of_the_class_counts_where_the_config_is_silent() -> None:
    stack = Stack(name="blocks", count_keys=("num_layers",), zero=("out",))
    anatomy = replace(ANATOMY, defaults={"num_layers": 1})
    assert find_stacks(fake(["blocks.0.out.weight"]), anatomy, stack)[0].depth == 1
    with pytest.raises(CheckpointError, match="num_layers = None"):
        find_stacks(fake(["blocks.0.out.weight"], num_layers=None), anatomy, stack)


def test_what_to_zero_must_be_there() -> None:
    stack = Stack(name="blocks", count_keys=("num_layers",), zero=("out",), zero_if_present=("maybe",))
    find_stacks(fake(["blocks.0.out.weight"], num_layers=1), ANATOMY, stack)
    with pytest.raises(CheckpointError, match=r"blocks.0.out.weight is not in the file"):
        find_stacks(fake(["blocks.0.in.weight"], num_layers=1), ANATOMY, stack)


def test_prefixes_are_whole() -> None:
    names = ["blocks.0.a", "vace_blocks.0.a", "x.blocks.0.a", "blocks.10.b.c"]
    assert group_by_prefix(names, "blocks") == {"blocks": {0: {"a": "blocks.0.a"}, 10: {"b.c": "blocks.10.b.c"}}}


def test_helpers_by_hand() -> None:
    assert ranges([0, 1, 2, 5]) == "0-2, 5"
    assert map_counts([1, [2, None]], lambda depth: depth + 10) == [11, [12, None]]


def test_a_count_left_open_beside_nested_ones_is_refused() -> None:
    """UNetMotionModel fills it with 1, whatever the mid block has grown to."""
    checkpoint = fake(NAMES, per_block=[[2, 2], [1]], mid=None)
    anatomy = replace(ANATOMY, stacks=(FAMILY,))
    with pytest.raises(PlanError, match="leaves mid open"):
        plan_expand(checkpoint, anatomy, ExpandOptions(mode="suffix"))
    even = [name for name in NAMES if not name.startswith("mid.")] + ["mid.motion.0.blocks.0.out.weight"]
    even.append("mid.motion.0.blocks.1.out.weight")
    grown = plan_expand(fake(even, per_block=[2, 2], mid=None), anatomy, ExpandOptions(mode="suffix", blocks=3))
    assert grown.config_edits == {"per_block": [5, 5]}
    assert grown.index_map.keys() == {"down.0.motion.0.blocks", "down.0.motion.1.blocks", "mid.motion.0.blocks"}
