"""A new block's tensors by hand: zeros, gates by rows, a last block that becomes an inner one."""

from __future__ import annotations

import pytest

from modelgrow.surgery import CheckpointError, Copy, Piece, Pieces, PlanError, Zeros
from modelgrow.surgery.anatomy import Gate, Last
from modelgrow.surgery.blocks import BlockTensor, as_inner, rebuild_last, silence


def part(source: str, *shape: int) -> BlockTensor:
    return BlockTensor(dtype="F32", shape=shape, content=Copy(source=source))


def rows(source: str | None, start: int, stop: int) -> Piece:
    return Piece(source=source, start=start, stop=stop)


def pieces(block: dict[str, BlockTensor], name: str) -> tuple[Piece, ...]:
    content = block[name].content
    assert isinstance(content, Pieces)
    return content.parts


BLOCK = {
    "norm.linear.weight": part("n.w", 8, 3),
    "norm.linear.bias": part("n.b", 8),
    "out.weight": part("o.w", 3, 3),
    "out.bias": part("o.b", 3),
    "in.weight": part("i.w", 3, 3),
}


def test_zero_takes_weight_and_bias_and_leaves_the_rest() -> None:
    block = silence(BLOCK, zero=("out", "absent"), gates=())
    assert isinstance(block["out.weight"].content, Zeros)
    assert isinstance(block["out.bias"].content, Zeros)
    assert {name for name in BLOCK if block[name] == BLOCK[name]} == {
        "norm.linear.weight",
        "norm.linear.bias",
        "in.weight",
    }


def test_gates_zero_rows() -> None:
    gate = Gate(module="norm.linear", chunks=4, zero=(1, 3))
    block = silence(BLOCK, zero=(), gates=(gate,))
    assert pieces(block, "norm.linear.weight") == (
        rows("n.w", 0, 2),
        rows(None, 0, 2),
        rows("n.w", 4, 6),
        rows(None, 0, 2),
    )
    assert pieces(block, "norm.linear.bias")[0] == rows("n.b", 0, 2)
    assert block["out.weight"] == BLOCK["out.weight"]


def test_a_gate_only_where_a_module_is_missing() -> None:
    gate = Gate(module="norm.linear", chunks=4, zero=(0,), without="out")
    assert silence(BLOCK, zero=(), gates=(gate,)) == BLOCK
    without = {name: value for name, value in BLOCK.items() if not name.startswith("out.")}
    assert pieces(silence(without, zero=(), gates=(gate,)), "norm.linear.bias") == (
        rows(None, 0, 2),
        rows("n.b", 2, 8),
    )


def test_rows_that_do_not_come_out_even() -> None:
    with pytest.raises(CheckpointError, match=r"norm.linear.weight: 8 rows do not come in 3 equal chunks"):
        silence(BLOCK, zero=(), gates=(Gate(module="norm.linear", chunks=3, zero=(0,)),))


SD3 = Last(module="norm_c", inner_module="norm_c", chunks=(1, 0, -1, -1), borrow=("to_add_out",))
LAST = {"norm_c.weight": part("9.norm_c.w", 4, 5), "norm_c.bias": part("9.norm_c.b", 4), "q.weight": part("9.q", 2, 2)}
BEFORE = {
    "norm_c.weight": part("8.norm_c.w", 8, 5),
    "norm_c.bias": part("8.norm_c.b", 8),
    "to_add_out.weight": part("8.add", 2, 2),
    "q.weight": part("8.q", 2, 2),
    "other.weight": part("8.other", 2, 2),
}


def test_a_last_block_opens() -> None:
    inner = as_inner(LAST, SD3, BEFORE, where="x")
    assert pieces(inner, "norm_c.weight") == (
        rows("9.norm_c.w", 2, 4),
        rows("9.norm_c.w", 0, 2),
        rows(None, 0, 2),
        rows(None, 0, 2),
    )
    assert inner["norm_c.weight"].shape == (8, 5)
    assert inner["to_add_out.weight"].content == Copy(source="8.add")
    assert inner["q.weight"].content == Copy(source="9.q")
    assert "other.weight" not in inner


def test_an_opened_block_closes_again() -> None:
    """The last block's chunk 0 stands in rows 2 to 4 of the inner one, its chunk 1 in rows 0 to 2."""
    assert rebuild_last(SD3, "8.norm_c.w", 8) == (rows("8.norm_c.w", 2, 4), rows("8.norm_c.w", 0, 2))


def test_a_copy_of_an_opened_block_keeps_its_borrowed_projection() -> None:
    """Its gate is zero already; a zero projection as well could never be trained."""
    inner = as_inner(LAST, SD3, BEFORE, where="x")
    silent = silence(inner, zero=("to_add_out", "q"), gates=(), keep=frozenset(SD3.borrow))
    assert silent["to_add_out.weight"].content == Copy(source="8.add")
    assert isinstance(silent["q.weight"].content, Zeros)


def test_nothing_to_borrow_from() -> None:
    with pytest.raises(PlanError, match=r"x: norm_c.weight of the last block has no counterpart"):
        as_inner(LAST, SD3, {"q.weight": part("8.q", 2, 2)}, where="x")
