"""growth.json decides what trains, and what does not train has no gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import row_of
from growths import grow
from models import save

from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.probes import random_inputs
from modelgrow.surgery import (
    Record,
    TrainError,
    open_checkpoint,
)
from modelgrow.train.select import add_lora, freeze_all_but, names_to_train

ROW = row_of("wan")


def grown(tmp_path: Path, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Any, Record]:
    base = save(tmp_path / "base", ROW.class_name, ROW.tiny)
    checkpoint = open_checkpoint(grow(base, tmp_path / "grown", **options))
    assert checkpoint.record is not None
    return load_model(checkpoint, dtype=dtype), checkpoint.record


def blocks(names: tuple[str, ...]) -> set[str]:
    return {name.split(".")[1] if name.startswith("blocks.") else name for name in names}


def test_new_is_what_the_record_says(tmp_path: Path) -> None:
    model, record = grown(tmp_path, mode="insert", blocks=2)
    names = names_to_train(model, record, "new")
    assert set(names) == set(record.new)
    assert blocks(names) == {"2", "5"}
    assert len(names_to_train(model, record, "all")) == len(list(model.parameters()))


def test_grown_blocks_are_whole(tmp_path: Path) -> None:
    model, record = grown(tmp_path, mode="suffix", blocks=1)
    names = names_to_train(model, record, "grown-blocks")
    assert set(names) == {name for name, _ in model.named_parameters() if name.startswith("blocks.4.")}


def test_frozen_means_frozen(tmp_path: Path) -> None:
    model, record = grown(tmp_path, mode="suffix", blocks=1)
    trained = freeze_all_but(model, names_to_train(model, record, "new"))
    inputs = random_inputs(ROW.class_name, model.config, seed=0, device=torch.device("cpu"), dtype=torch.float32)
    model(**inputs, return_dict=False)[0].square().mean().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {name for name, _ in trained}
    # LLaMA-Pro's claim (arXiv 2401.02415): at the first step just what is zero has a gradient.
    moving = {name for name, p in trained if p.grad is not None and p.grad.abs().max() > 0}
    assert moving == set(record.zeroed)


def test_what_trains_is_float32_and_the_rest_stays(tmp_path: Path) -> None:
    model, record = grown(tmp_path, torch.bfloat16, mode="suffix", blocks=1)
    before = {name: p.dtype for name, p in model.named_parameters()}
    trained = {name for name, _ in freeze_all_but(model, names_to_train(model, record, "new"))}
    after = {name: p.dtype for name, p in model.named_parameters()}
    assert {after[name] for name in trained} == {torch.float32}
    assert all(after[name] == before[name] for name in before if name not in trained)
    assert torch.bfloat16 in {after[name] for name in before if name not in trained}


def test_lora_trains_nothing_else(tmp_path: Path) -> None:
    model, _ = grown(tmp_path, mode="suffix", blocks=1)
    trained = add_lora(model, rank=2, seed=0)
    assert trained
    assert all("lora_" in name for name, _ in trained)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {name for name, _ in trained}


def test_nothing_grown_is_an_error(tmp_path: Path) -> None:
    model, record = grown(tmp_path, mode="suffix", blocks=1)
    with pytest.raises(TrainError, match=r"no growth\.json"):
        names_to_train(model, None, "new")
    smaller = load_model(open_checkpoint(tmp_path / "base"), dtype=torch.float32)
    with pytest.raises(TrainError, match=r"names 'blocks\.4\..*', which WanTransformer3DModel does not have"):
        names_to_train(smaller, record, "new")
