"""What a slot learns from: gradients at the start, and with blocks that are run again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import Architecture, row_of
from attached import CLASSES, attach, enliven, inputs_of, load, outputs
from models import save

from modelgrow.surgery import open_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*should be kept in float32")
CASES = [pytest.param(row, id=row.class_name) for row in CLASSES]


def gradients(model: Any, *seeds: int) -> dict[str, torch.Tensor]:
    """Of a loss over one forward pass for each seed, all of them before the first backward pass."""
    model.zero_grad()
    losses = [
        torch.stack([output.float().square().sum() for output in outputs(model, inputs_of(model, seed=seed))]).sum()
        for seed in seeds
    ]
    for loss in losses:
        loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("row", CASES)
def test_gradients_reach_the_slot_and_survive_checkpointing(row: Architecture, tmp_path: Path) -> None:
    folder = attach(save(tmp_path / "base", row.class_name, row.tiny), tmp_path / "slot")
    record = open_checkpoint(folder).record
    model = load(folder)
    assert record is not None
    first = gradients(model, 1)
    assert {name for name in record.new if first[name].any()} == set(record.zeroed), "at first only what is zero learns"
    expected = gradients(enliven(model), 1, 2)
    assert all(expected[name].any() for name in record.new if name != "llm_projector.null")
    model.enable_gradient_checkpointing()
    try:
        found = gradients(model, 1, 2)
    except torch.utils.checkpoint.CheckpointError:
        original = load(tmp_path / "base")
        original.enable_gradient_checkpointing()
        with pytest.raises(torch.utils.checkpoint.CheckpointError):
            gradients(original, 1, 2)
        pytest.skip("the base's own blocks can't be run again on this machine")
    assert found.keys() == expected.keys()
    # The base's blocks may add up in another order when they run again; what a wrong context does is far larger.
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max() + 1))


def test_a_later_forward_pass_does_not_change_the_context_of_an_earlier_one(tmp_path: Path) -> None:
    """Without the binding, blocks that run again in `backward` would read what the last forward pass read."""
    row = row_of("wan")
    model = enliven(load(attach(save(tmp_path / "base", row.class_name, row.tiny), tmp_path / "slot")))
    expected = gradients(model, 1, 2)
    model.enable_gradient_checkpointing()
    assert all(torch.equal(value, expected[name]) for name, value in gradients(model, 1, 2).items())
    unbound = model._gradient_checkpointing_func.function
    model._gradient_checkpointing_func = unbound
    with pytest.raises(torch.utils.checkpoint.CheckpointError):  # the context is empty by then, which torch notices
        gradients(model, 1, 2)


def test_a_copy_has_a_context_of_its_own(tmp_path: Path) -> None:
    row = row_of("wan")
    model = enliven(load(attach(save(tmp_path / "base", row.class_name, row.tiny), tmp_path / "slot")))
    model.enable_gradient_checkpointing()
    expected = gradients(model, 1)  # copied after a forward pass with gradients, which torch refuses to copy
    other = copy.deepcopy(model)
    assert other.slot_context is not model.slot_context
    assert all(block.llm_attn.context is other.slot_context for block in other.blocks)
    assert other._gradient_checkpointing_func.context is other.slot_context
    assert all(torch.equal(value, expected[name]) for name, value in gradients(other, 1).items())


def test_null_embedding_learns_from_samples_without_text(tmp_path: Path) -> None:
    row = row_of("wan")
    model = enliven(load(attach(save(tmp_path / "base", row.class_name, row.tiny), tmp_path / "slot")))
    inputs = inputs_of(model)
    outputs(model, inputs)[0].square().sum().backward()
    assert not model.llm_projector.null.grad.any()
    model.zero_grad()
    inputs["llm_attention_mask"][1] = False
    outputs(model, inputs)[0].square().sum().backward()
    assert model.llm_projector.null.grad.any()
