"""True shapes of published models on the meta device: the plan against what the grown class expects, whole."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from architectures import ARCHITECTURES

from modelgrow.surgery import Checkpoint, ExpandOptions, Tensor, anatomies, plan_expand

PUBLISHED = [
    pytest.param(row.class_name, config, id=hub_id) for row in ARCHITECTURES for hub_id, config in row.published.items()
]


def shapes(class_name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = getattr(diffusers, class_name)(**config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def as_checkpoint(class_name: str, config: Mapping[str, Any]) -> Checkpoint:
    tensors = {
        name: Tensor(dtype="BF16", shape=shape, file=Path("weights"), offset=0, nbytes=0)
        for name, shape in shapes(class_name, config).items()
    }
    depth = inspect.signature(getattr(diffusers, class_name)).parameters["num_layers"].default
    return Checkpoint(
        path=Path(class_name), tensors=tensors, config={"num_layers": depth, **config, "_class_name": class_name}
    )


@pytest.mark.parametrize(("class_name", "config"), PUBLISHED)
def test_plan_equals_what_the_grown_class_expects(class_name: str, config: Mapping[str, Any]) -> None:
    checkpoint = as_checkpoint(class_name, config)
    depth = checkpoint.config["num_layers"]
    for options in (
        ExpandOptions(mode="insert"),
        ExpandOptions(mode="insert", group=2),
        ExpandOptions(mode="prefix", blocks=3),
        ExpandOptions(mode="suffix"),
    ):
        plan = plan_expand(checkpoint, anatomies()[class_name], options)
        plan.validate(checkpoint)
        grown = {tensor.name: tensor.shape for tensor in plan.tensors}
        edited = {**config, **plan.config_edits}
        assert edited["num_layers"] > depth
        assert grown == shapes(class_name, edited)
