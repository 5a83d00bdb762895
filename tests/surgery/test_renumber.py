"""Config keys that speak of block numbers, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelgrow.surgery import CheckpointError, PlanError, anatomies
from modelgrow.surgery.anatomy import Renumber, Stride
from modelgrow.surgery.order import Order, order_blocks
from modelgrow.surgery.renumber import new_stride, renumbered

ANATOMY = anatomies()["WanTransformer3DModel"]


def order(mode: str, depth: int, blocks: int, group: int = 1) -> Order:
    return order_blocks(mode, depth=depth, blocks=blocks, group=group)


def edit(kind: str, value: Any, made: Order) -> Any:
    stack = replace(ANATOMY.stacks[0], renumber=(Renumber(key="k", kind=kind),))
    return renumbered(ANATOMY, stack, {"k": value}, made).get("k")


@pytest.mark.parametrize(
    ("kind", "value", "made", "expected"),
    [
        ("copies", [0, 2], order("insert", 4, 4), [0, 1, 4, 5]),
        ("originals", [0, 2], order("insert", 4, 4), [0, 4]),
        ("copies", [0, 3], order("prefix", 4, 2, 4), [0, 1, 2, 5]),
        ("copies", [0, 3], order("suffix", 4, 2, 4), [0, 3, 4, 5]),
        ("originals", [0, 3], order("suffix", 4, 2, 4), [0, 3]),
        ("below", 2, order("insert", 4, 4), 4),
        ("below", 2, order("suffix", 4, 3, 4), 2),
        ("below", 2, order("prefix", 4, 3, 4), 5),
        ("below", 4, order("suffix", 4, 3, 4), 7),  # all blocks are of that kind, and stay so
        ("below", 48, order("suffix", 4, 3, 4), 48),
        ("original", 0, order("prefix", 4, 3, 4), 3),
        ("original", 2, order("insert", 4, 4), 4),
        ("original", 3, order("suffix", 4, 3, 4), 3),
        ("copies", None, order("insert", 4, 4), None),
    ],
)
def test_by_hand(kind: str, value: Any, made: Order, expected: Any) -> None:
    assert edit(kind, value, made) == expected


@pytest.mark.parametrize("value", [[4], [-1], "all", [True], 3, [[0]]])
def test_wrong_lists_are_named(value: Any) -> None:
    with pytest.raises(CheckpointError, match="expected block numbers below 4"):
        edit("copies", value, order("insert", 4, 4))


@pytest.mark.parametrize("value", [4, -1, "0", True, [0]])
def test_a_wrong_block_is_named(value: Any) -> None:
    with pytest.raises(CheckpointError, match="expected a block number below 4"):
        edit("original", value, order("insert", 4, 4))


@pytest.mark.parametrize(("mode", "expected"), [("prefix", {"k": 2}), ("suffix", {})])
def test_a_default_is_written_where_it_no_longer_holds(mode: str, expected: dict[str, int]) -> None:
    stack = replace(ANATOMY.stacks[0], renumber=(Renumber(key="k", kind="original"),))
    anatomy = replace(ANATOMY, defaults={"k": 0})
    assert renumbered(anatomy, stack, {}, order(mode, 4, 2, 4)) == expected


STRIDE = Stride(key="every", stack="adapters", zero=("out",))


@pytest.mark.parametrize(
    ("every", "made", "expected"),
    [
        (5, order("insert", 40, 40), (5, 10)),  # 0, 5, 10 ... become 0, 10, 20 ...
        (5, order("insert", 40, 8, 5), (5, 6)),  # a copy after every fifth block: 0, 6, 12 ...
        (5, order("suffix", 40, 5, 40), (5, 5)),
        (5, order("suffix", 40, 10, 40), (5, 5)),
        (5, order("suffix", 40, 3, 40), (5, 1)),  # 43 blocks: only every single one hits 0, 5, 10 ... and divides
        (5, order("prefix", 40, 10, 40), (5, 5)),  # 10, 15, 20 ...
        (4, order("prefix", 8, 2, 8), (4, 2)),  # 2, 6 of 10 blocks
    ],
)
def test_strides_by_hand(every: int, made: Order, expected: tuple[int, int]) -> None:
    assert new_stride(ANATOMY, STRIDE, {"every": every}, made) == expected


def test_without_a_stack_distances_must_stay_equal() -> None:
    bare = Stride(key="every")
    assert new_stride(ANATOMY, bare, {"every": 2}, order("insert", 6, 6)) == (2, 4)
    assert new_stride(ANATOMY, bare, {"every": None}, order("insert", 6, 6)) is None
    for made in (order("prefix", 6, 2, 6), order("suffix", 6, 2, 6)):
        with pytest.raises(PlanError, match="at no equal distances"):
            new_stride(ANATOMY, bare, {"every": 2}, made)


def test_a_stride_that_does_not_divide() -> None:
    with pytest.raises(CheckpointError, match="a number that divides the 6 blocks"):
        new_stride(ANATOMY, STRIDE, {"every": 4}, order("insert", 6, 6))
