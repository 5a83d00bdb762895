"""Backward goes no deeper than the first trained parameter: counted in operations and in kept bytes, not timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES
from growths import job_of
from models import save

from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.probes import random_inputs
from modelgrow.surgery import execute, open_checkpoint
from modelgrow.train.cost import Cost, measure_step
from modelgrow.train.select import add_lora, freeze_all_but, names_to_train

ROW = next(row for row in ARCHITECTURES if row.name == "cogvideox-2b")
CONFIG = {**ROW.tiny, "num_layers": 12, "sample_frames": 17, "sample_width": 16, "sample_height": 16}


def grown(tmp_path: Path, mode: str) -> Any:
    """12 blocks and 4 new ones: a quarter of the grown model."""
    base = save(tmp_path / "base", ROW.class_name, CONFIG)
    return open_checkpoint(execute(job_of(base, mode, blocks=4), tmp_path / mode, overwrite=True))


def cost(tmp_path: Path, mode: str, train: str) -> Cost:
    checkpoint = grown(tmp_path, mode)
    model = load_model(checkpoint, dtype=torch.float32)
    if train == "lora":
        add_lora(model, rank=4, seed=0)
    else:
        freeze_all_but(model, names_to_train(model, checkpoint.record, train))
    inputs = random_inputs(ROW.class_name, model.config, seed=0, device=torch.device("cpu"), dtype=torch.float32)
    return measure_step(model, lambda: model(**inputs, return_dict=False)[0].square().mean())


@pytest.fixture
def full(tmp_path: Path) -> Cost:
    return cost(tmp_path / "full", "suffix", "all")


def test_suffix_costs_half_and_keeps_a_quarter(tmp_path: Path, full: Cost) -> None:
    """16 blocks of which the last 4 train: forward 16, backward 4 x 2, against 16 x 3 in all: 0.5."""
    suffix = cost(tmp_path, "suffix", "new")
    assert 0.45 < suffix.flops / full.flops <= 0.60
    assert 0.15 < suffix.saved_bytes / full.saved_bytes <= 0.30


def test_prefix_and_lora_reach_further_back(tmp_path: Path, full: Cost) -> None:
    suffix, prefix, insert = (cost(tmp_path, mode, "new") for mode in ("suffix", "prefix", "insert"))
    lora = cost(tmp_path, "suffix", "lora")
    assert suffix.flops < insert.flops <= prefix.flops < full.flops
    assert suffix.saved_bytes < insert.saved_bytes < prefix.saved_bytes
    assert suffix.flops < lora.flops
    assert suffix.saved_bytes < lora.saved_bytes


def test_by_hand() -> None:
    """y = w x with x (5, 3) and w (2, 3): 2*5*3*2 operations forward, as many for w; x is kept, 60 bytes."""
    model = torch.nn.Linear(3, 2, bias=False)
    x = torch.ones(5, 3)
    found = measure_step(model, lambda: model(x).sum())
    assert found == Cost(flops=60 + 60, saved_bytes=60)
    model.weight.requires_grad_(False)
    free = torch.nn.Parameter(torch.ones(()))
    frozen = measure_step(model, lambda: model(x).sum() * free)
    assert frozen.flops == 60
