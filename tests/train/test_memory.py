"""The prediction is what a real step takes, for every choice of what trains: the allocator is asked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from allocations import peak_of
from architectures import row_of
from growths import grow
from models import build, save
from tiny_runs import settings

from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.probes import random_inputs
from modelgrow.surgery import open_checkpoint
from modelgrow.train.cost import measure_step
from modelgrow.train.loop import Loop
from modelgrow.train.memory import Memory, predict_memory
from modelgrow.train.run import predict
from modelgrow.train.select import freeze_all_but, names_to_train
from modelgrow.train.setup import set_up

EXACT = 0.005
"""Of a step. What is left are counts and indices of some bytes, and the batch."""


def call(model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    output: torch.Tensor = model(**inputs, return_dict=False)[0]
    return output


@pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:CPU Autocast only")  # Mochi's, see test_more_families
@pytest.mark.parametrize(
    ("name", "train"),
    [("wan", "new"), ("cogvideox-5b", "all"), ("ltx", "new"), ("hunyuan-video-1.5", "new"), ("mochi", "new")],
)
def test_a_step_takes_what_was_predicted(name: str, train: str, tmp_path: Path) -> None:
    row = row_of(name)
    base = save(tmp_path / "base", row.class_name, row.tiny)
    checkpoint = open_checkpoint(grow(base, tmp_path / "grown", "suffix", blocks=1))
    model = load_model(checkpoint, dtype=torch.float32)
    freeze_all_but(model, names_to_train(model, checkpoint.record, train))
    inputs = random_inputs(row.class_name, model.config, seed=0, device=torch.device("cpu"), dtype=torch.float32)
    if name == "mochi":  # which computes nothing for padding, and the prediction is for captions without any
        inputs["encoder_attention_mask"] = torch.ones_like(inputs["encoder_attention_mask"])
    memory = predict_memory(model, call, inputs, optimizer="adamw", average=True, autocast=nullcontext)
    trained = [p for p in model.parameters() if p.requires_grad]
    values = sum(p.numel() for p in trained)
    assert (memory.gradients, memory.optimizer, memory.average) == (4 * values, 8 * values, 4 * values)
    assert memory.weights == sum(4 * p.numel() for p in (*model.parameters(), *model.buffers()))
    assert model.training is False
    assert all(p.grad is None for p in model.parameters())
    real = measure_step(model, lambda: call(model, inputs).float().square().mean())
    assert memory.activations == pytest.approx(real.saved_bytes, rel=0.02)
    optimizer = torch.optim.AdamW(trained)

    def step() -> None:
        call(model, inputs).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # the first one makes the optimizer's state
    given = sum(value.nbytes for value in inputs.values() if isinstance(value, torch.Tensor))
    assert memory.step is not None
    assert memory.step - given == pytest.approx(peak_of(step), rel=EXACT, abs=given)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # of a norm in float32, once
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16"},
        {"gradient_checkpointing": True},
        {"accumulate": 3, "train": "all"},
        {"train": "lora"},
        {"ema_decay": 0.9},
    ],
    ids=lambda changes: "-".join(map(str, changes)) or "plain",
)
def test_a_runs_step_takes_what_was_predicted(changes: dict[str, Any], grown: Path, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # else the precision is that of the process's first run
    run = set_up(settings(grown, tmp_path / "run", **changes), lambda _: None)
    memory = predict(run)
    loop = Loop(run=run, report=lambda _: None)
    loop._optimize()
    loop.step += 1
    assert memory.step == pytest.approx(peak_of(loop._optimize), rel=0.01)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("train", ["new", "all"])
def test_a_gpu_comes_to_what_was_predicted(train: str) -> None:
    """Six blocks of CogVideoX 2B on 25 frames of 480 x 720: large enough for workspaces to be small."""
    device = torch.device("cuda")
    with device:
        model = build("CogVideoXTransformer3DModel", {"num_attention_heads": 30, "num_layers": 6}).to(torch.bfloat16)
        inputs = {
            "hidden_states": torch.randn(1, 7, 16, 60, 90, dtype=torch.bfloat16),
            "encoder_hidden_states": torch.randn(1, 226, 4096, dtype=torch.bfloat16),
            "timestep": torch.full((1,), 500.0),
        }
    names = [name for name, _ in model.named_parameters() if train == "all" or name.startswith("transformer_blocks.5.")]
    trained = [parameter for _, parameter in freeze_all_but(model, tuple(names))]

    def autocast() -> torch.autocast:
        return torch.autocast("cuda", torch.bfloat16)

    memory = predict_memory(model, call, inputs, optimizer="adamw", average=False, autocast=autocast)
    optimizer = torch.optim.AdamW(trained)
    for _ in range(2):  # the first step makes the optimizer's state
        torch.cuda.reset_peak_memory_stats()
        with autocast():
            loss = call(model, inputs).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.cuda.max_memory_allocated() == pytest.approx(memory.total, rel=0.15)


def test_less_is_kept_where_activations_are_made_again(grown: Path, tmp_path: Path) -> None:
    plain, again = (
        predict(set_up(settings(grown, tmp_path / str(on), gradient_checkpointing=on, train="all"), lambda _: None))
        for on in (False, True)
    )
    assert plain.activations is not None
    assert again.activations is not None
    assert again.activations < plain.activations / 2


def test_longer_clips_keep_more() -> None:
    row = row_of("wan")
    model = build(row.class_name, row.tiny)

    def kept(frames: int) -> int:
        inputs = random_inputs(row.class_name, model.config, seed=0, device=torch.device("cpu"), dtype=torch.float32)
        inputs["hidden_states"] = torch.zeros(2, 4, frames, 6, 8)
        memory = predict_memory(model, call, inputs, optimizer="adamw8bit", average=False, autocast=nullcontext)
        assert memory.activations is not None
        return memory.activations

    assert kept(8) == pytest.approx(2 * kept(4), rel=0.15)


def test_by_hand() -> None:
    """What several processes change, and what is said."""
    memory = Memory(
        weights=2_000_000_000,
        optimizer=800_000_000,
        average=0,
        gradients=400_000_000,
        activations=900_000_000,
        step=1_000_000_000,
    )
    assert memory.total == 3_800_000_000
    assert memory.split(2).total == 1_000_000_000 + 400_000_000 + 800_000_000
    assert memory.zero(2).total == 2_000_000_000 + 600_000_000 + 1_000_000_000
    assert memory.doubled().total == 4_200_000_000
    assert memory.sentence == (
        "predicted peak 3.80 GB (weights 2.00, optimizer 0.80, average 0.00, a step 1.00: it keeps activations of "
        "0.90, and makes gradients of 0.40)"
    )
    untold = Memory(weights=2_000_000, optimizer=0, average=0, gradients=500_000, activations=None, step=None).sentence
    assert untold.startswith("predicted peak 2.5 MB (weights 2.0, optimizer 0.0, average 0.0, gradients 0.5), and what")
