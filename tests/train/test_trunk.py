"""A trunk that is not run leaves what follows it as it was, whatever the model counts its blocks for."""

from __future__ import annotations

import pytest
import torch
from architectures import row_of
from models import build

from modelgrow.pipelines.probes import random_inputs, run_model
from modelgrow.train.trunk import recorded, replayed

STACKS = {
    "wan": "blocks",
    "wan-animate": "blocks",
    "wan-vace": "blocks",
    "latte": "transformer_blocks",
    "ltx2": "transformer_blocks",
    "sd3": "transformer_blocks",
}
"""Wan VACE and Wan Animate add something behind blocks of certain numbers."""


@pytest.mark.parametrize("name", STACKS)
def test_blocks_behind_the_trunk_keep_their_numbers(name: str) -> None:
    row, stack = row_of(name), STACKS[name]
    model = build(row.class_name, row.tiny)
    inputs = random_inputs(row.class_name, model.config, seed=0, device=torch.device("cpu"), dtype=torch.float32)
    depth = len(model.get_submodule(stack)) - 1
    with torch.no_grad():
        with recorded(model, stack, depth) as outputs:
            exact = run_model(model, inputs)
        streams = outputs[0] if isinstance(outputs[0], tuple) else (outputs[0],)
        with replayed(model, stack, depth, streams):
            fast = run_model(model, inputs)
        with replayed(model, stack, depth, tuple(stream.flip(0) for stream in streams)):
            other = run_model(model, inputs)
    assert all(torch.equal(one, two) for one, two in zip(fast, exact, strict=True))
    assert (other[0] - exact[0]).abs().max() > 1e-2
    assert len(model.get_submodule(stack)) == depth + 1
