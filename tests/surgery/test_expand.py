"""ModelGrow's rule (figure 2 b, c, d), on paper: no tensor is needed for most of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelgrow.surgery import Checkpoint, Copy, ExpandOptions, PlanError, Tensor, Zeros, anatomies, plan_expand
from modelgrow.surgery.order import order_blocks, resolve


def fake(depth: int, *, inner: tuple[str, ...] = ()) -> Checkpoint:
    """A CogVideoX checkpoint of one-element tensors that no file holds."""
    names = ["patch_embed.proj.weight"]
    for i in range(depth):
        for name in ("attn1.to_out.0.weight", "attn1.to_out.0.bias", "attn1.to_q.weight", "ff.net.2.weight", *inner):
            names.append(f"transformer_blocks.{i}.{name}")
    tensors = {
        name: Tensor(dtype="F32", shape=(1,), file=Path("weights"), offset=4 * i, nbytes=4)
        for i, name in enumerate(names)
    }
    config = {"_class_name": "CogVideoXTransformer3DModel", "num_layers": depth}
    return Checkpoint(path=Path("fake"), tensors=tensors, config=config)


ANATOMY = anatomies()["CogVideoXTransformer3DModel"]


@pytest.mark.parametrize(
    ("mode", "depth", "blocks", "group", "sources", "new"),
    [
        ("insert", 4, 4, 1, [0, 0, 1, 1, 2, 2, 3, 3], [1, 3, 5, 7]),
        ("insert", 4, 2, 2, [0, 1, 1, 2, 3, 3], [2, 5]),
        ("insert", 4, 4, 2, [0, 1, 1, 1, 2, 3, 3, 3], [2, 3, 6, 7]),
        ("insert", 3, 6, 1, [0, 0, 0, 1, 1, 1, 2, 2, 2], [1, 2, 4, 5, 7, 8]),
        ("prefix", 3, 2, 3, [0, 0, 0, 1, 2], [0, 1]),
        ("suffix", 3, 2, 3, [0, 1, 2, 2, 2], [3, 4]),
    ],
)
def test_order_by_hand(mode: str, depth: int, blocks: int, group: int, sources: list[int], new: list[int]) -> None:
    order = order_blocks(mode, depth=depth, blocks=blocks, group=group)
    assert list(order.sources) == sources
    assert [place for place, is_new in enumerate(order.is_new) if is_new] == new
    assert list(order.copied_from) == new
    assert [order.sources[place] for place in order.index_map] == list(range(depth))


def test_insert_by_groups_is_llama_pro() -> None:
    """32 layers, 8 new: a copy after every fourth layer (scripts/block_expansion.py of LLaMA-Pro)."""
    order = order_blocks("insert", depth=32, blocks=8, group=4)
    assert list(order.copied_from.items()) == [(4 + 5 * i, 3 + 4 * i) for i in range(8)]


@pytest.mark.parametrize(
    ("options", "depth", "expected"),
    [
        ({"mode": "insert"}, 28, (28, 1)),  # the paper doubles: P = N, M = 1
        ({"mode": "insert", "group": 4}, 28, (7, 4)),
        ({"mode": "insert", "blocks": 7}, 28, (7, 4)),
        ({"mode": "insert", "blocks": 56}, 28, (56, 1)),
        ({"mode": "insert", "blocks": 14, "group": 4}, 28, (14, 4)),
        ({"mode": "suffix"}, 30, (7, 30)),
        ({"mode": "prefix"}, 2, (1, 2)),
        ({"mode": "suffix", "blocks": 3}, 2, (3, 2)),
    ],
)
def test_defaults(options: dict[str, object], depth: int, expected: tuple[int, int]) -> None:
    assert resolve(ExpandOptions(**options), depth) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "zigzag"}, "choose from insert, prefix, suffix"),
        ({"mode": "insert", "init": "noise"}, "choose from zero, copy"),
        ({"mode": "suffix", "blocks": 0}, "at least 1"),
        ({"mode": "suffix", "blocks": 10**12}, "no more than 10000"),
        ({"mode": "suffix", "group": 2}, "--group belongs to --mode insert"),
        ({"mode": "insert", "group": 5}, "--group 5 does not divide the 28 blocks; choose from 1, 2, 4, 7, 14, 28"),
        ({"mode": "insert", "blocks": 5}, "--blocks 5 can't be spread evenly over 28 blocks"),
        ({"mode": "insert", "blocks": 5, "group": 14}, "each of the 2 groups of 14; choose a multiple of 2"),
    ],
)
def test_refusals_say_what_to_do(options: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=None) as caught:
        resolve(ExpandOptions(**options), 28)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_plan_by_hand() -> None:
    plan = plan_expand(fake(2), ANATOMY, ExpandOptions(mode="insert"))
    contents = {tensor.name: tensor.content for tensor in plan.tensors}
    assert contents["patch_embed.proj.weight"] == Copy(source="patch_embed.proj.weight")
    assert contents["transformer_blocks.2.attn1.to_q.weight"] == Copy(source="transformer_blocks.1.attn1.to_q.weight")
    assert contents["transformer_blocks.3.attn1.to_q.weight"] == Copy(source="transformer_blocks.1.attn1.to_q.weight")
    assert set(plan.zeroed_names) == {
        f"transformer_blocks.{i}.{name}"
        for i in (1, 3)
        for name in ("attn1.to_out.0.weight", "attn1.to_out.0.bias", "ff.net.2.weight")
    }
    assert set(plan.new_names) == {
        name for name in contents if name.startswith(("transformer_blocks.1.", "transformer_blocks.3."))
    }
    assert plan.config_edits == {"num_layers": 4}
    assert plan.index_map == {"transformer_blocks": (0, 2)}
    assert plan.copied_from == {"transformer_blocks": {1: 0, 3: 1}}


def test_copy_init_zeroes_nothing_and_says_so() -> None:
    plan = plan_expand(fake(2), ANATOMY, ExpandOptions(mode="suffix", init="copy"))
    assert not any(isinstance(tensor.content, Zeros) for tensor in plan.tensors)
    assert "does NOT compute the base's function" in plan.notes[0]


def test_numbers_inside_a_block_are_not_block_numbers() -> None:
    plan = plan_expand(fake(2, inner=("transformer_blocks.0.weight",)), ANATOMY, ExpandOptions(mode="prefix", blocks=1))
    assert plan.renamed["transformer_blocks.1.transformer_blocks.0.weight"] == (
        "transformer_blocks.2.transformer_blocks.0.weight"
    )


def test_validate_catches_a_plan_that_loses_a_tensor() -> None:
    from dataclasses import replace

    checkpoint = fake(2)
    plan = plan_expand(checkpoint, ANATOMY, ExpandOptions(mode="suffix"))
    plan.validate(checkpoint)
    for broken, message in (
        (replace(plan, tensors=plan.tensors[1:]), "would lose 'patch_embed.proj.weight'"),
        (replace(plan, tensors=(*plan.tensors, plan.tensors[0])), "twice"),
        (replace(plan, tensors=(replace(plan.tensors[0], shape=(2,)), *plan.tensors[1:])), "is planned as F32 [2]"),
        (replace(plan, tensors=(*plan.tensors, replace(plan.tensors[0], name="x", content=Copy(source="y")))), "lacks"),
    ):
        with pytest.raises(PlanError) as caught:
            broken.validate(checkpoint)
        assert message in str(caught.value)
