"""The prediction is what a real step keeps, for every choice of what trains."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES
from models import build, save

from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.probes import random_inputs
from modelgrow.surgery import ExpandOptions, execute, open_checkpoint, open_source, plan_expand, prepare
from modelgrow.train.cost import measure_step
from modelgrow.train.memory import predict_memory
from modelgrow.train.select import freeze_all_but, names_to_train


def call(model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    output: torch.Tensor = model(**inputs, return_dict=False)[0]
    return output


@pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:CPU Autocast only")  # Mochi's, see test_more_families
@pytest.mark.parametrize(
    ("name", "train"),
    [("wan", "new"), ("cogvideox-5b", "all"), ("ltx", "new"), ("hunyuan-video-1.5", "new"), ("mochi", "new")],
)
def test_activations_are_those_of_a_real_step(name: str, train: str, tmp_path: Path) -> None:
    row = next(row for row in ARCHITECTURES if row.name == name)
    base = save(tmp_path / "base", row.class_name, row.tiny)
    options = ExpandOptions(mode="suffix", blocks=1)
    job = prepare(open_source(str(base)), lambda checkpoint, anatomy: plan_expand(checkpoint, anatomy, options))
    checkpoint = open_checkpoint(execute(job, tmp_path / "grown"))
    model = load_model(checkpoint, dtype=torch.float32)
    freeze_all_but(model, names_to_train(model, checkpoint.record, train))
    inputs = random_inputs(row.class_name, model.config, seed=0, device=torch.device("cpu"), dtype=torch.float32)
    if name == "mochi":  # which computes nothing for padding, and the prediction is for captions without any
        inputs["encoder_attention_mask"] = torch.ones_like(inputs["encoder_attention_mask"])
    real = measure_step(model, lambda: call(model, inputs).float().square().mean())
    memory = predict_memory(model, call, inputs, optimizer="adamw", average=True, autocast=nullcontext)
    assert memory.activations == pytest.approx(real.saved_bytes, rel=0.02)
    values = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (memory.gradients, memory.optimizer, memory.average) == (4 * values, 8 * values, 4 * values)
    assert memory.weights == sum(4 * p.numel() for p in (*model.parameters(), *model.buffers()))
    assert model.training is False
    assert all(p.grad is None for p in model.parameters())


def test_longer_clips_keep_more() -> None:
    row = next(row for row in ARCHITECTURES if row.name == "wan")
    model = build(row.class_name, row.tiny)

    def kept(frames: int) -> int:
        inputs = random_inputs(row.class_name, model.config, seed=0, device=torch.device("cpu"), dtype=torch.float32)
        inputs["hidden_states"] = torch.zeros(2, 4, frames, 6, 8)
        memory = predict_memory(model, call, inputs, optimizer="adamw8bit", average=False, autocast=nullcontext)
        assert memory.activations is not None
        return memory.activations

    assert kept(8) == pytest.approx(2 * kept(4), rel=0.15)
