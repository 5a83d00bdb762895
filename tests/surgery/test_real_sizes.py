"""True shapes of published models on the meta device: the plan against what the grown class expects, whole."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES

from modelgrow.pipelines.models import model_class
from modelgrow.surgery import Checkpoint, ExpandOptions, PlanError, Stack, Tensor, anatomies, plan_expand
from modelgrow.surgery.attach_llm import AttachOptions, plan_attach_llm
from modelgrow.surgery.language_model import LanguageModel
from modelgrow.surgery.stacks import find_stacks

PUBLISHED = [
    pytest.param(row.class_name, config, id=hub_id) for row in ARCHITECTURES for hub_id, config in row.published.items()
]


def shapes(class_name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = model_class(class_name)(**config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def as_checkpoint(class_name: str, config: Mapping[str, Any]) -> Checkpoint:
    tensors = {
        name: Tensor(dtype="BF16", shape=shape, file=Path("weights"), offset=0, nbytes=0)
        for name, shape in shapes(class_name, config).items()
    }
    parameters = inspect.signature(model_class(class_name)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return Checkpoint(path=Path(class_name), tensors=tensors, config={**defaults, **config, "_class_name": class_name})


def growths(checkpoint: Checkpoint, stack: Stack) -> list[ExpandOptions]:
    options = [ExpandOptions(mode="insert", stack=stack.name)]
    if stack.kind == "blocks":
        found = find_stacks(checkpoint, anatomies()[str(checkpoint.class_name)], stack)
        if all(place.depth % 2 == 0 for place in found):
            options.append(ExpandOptions(mode="insert", group=2, stack=stack.name))
        options += [ExpandOptions(mode=mode, blocks=3, stack=stack.name) for mode in ("prefix", "suffix")]
    return options


def refused(checkpoint: Checkpoint, stack: Stack, options: ExpandOptions) -> bool:
    anatomy = anatomies()[str(checkpoint.class_name)]
    return any(
        options.mode in refusal.modes and anatomy.holds(checkpoint.config, refusal.when) for refusal in stack.refusals
    )


@pytest.mark.parametrize(("class_name", "config"), PUBLISHED)
def test_plan_equals_what_the_grown_class_expects(class_name: str, config: Mapping[str, Any]) -> None:
    checkpoint = as_checkpoint(class_name, config)
    anatomy = anatomies()[class_name]
    for stack in anatomy.stacks:
        for options in growths(checkpoint, stack):
            if refused(checkpoint, stack, options):
                with pytest.raises(PlanError):
                    plan_expand(checkpoint, anatomy, options)
                continue
            plan = plan_expand(checkpoint, anatomy, options)
            plan.validate(checkpoint)
            grown = {tensor.name: tensor.shape for tensor in plan.tensors}
            assert len(grown) > len(checkpoint.tensors)
            assert grown == shapes(class_name, {**config, **plan.config_edits}), (stack.name, options.mode)


@pytest.mark.parametrize(("class_name", "config"), PUBLISHED)
def test_slot_equals_what_the_grown_class_expects(class_name: str, config: Mapping[str, Any]) -> None:
    anatomy = anatomies()[class_name]
    checkpoint = as_checkpoint(class_name, config)
    llm = LanguageModel(name="Qwen/Qwen3-0.6B", dim=1024, class_name="Qwen3ForCausalLM")
    for stack in anatomy.stacks:
        if stack.slot is None:
            continue
        plan = plan_attach_llm(checkpoint, anatomy, AttachOptions(llm=llm, stack=stack.name))
        plan.validate(checkpoint)
        grown = {tensor.name: tensor.shape for tensor in plan.tensors}
        edited = {key: value for key, value in plan.config_edits.items() if key != "_class_name"}
        assert len(grown) > len(checkpoint.tensors)
        assert grown == shapes(plan.config_edits["_class_name"], {**config, **edited}), stack.name
