"""A grown MotionAdapter where it is used: plugged into a UNet, which it must leave the same function."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel, UNetMotionModel
from growths import grow
from models import build, save
from tiny_adapter import ROW, UNET

from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.probes import random_inputs, run_model
from modelgrow.surgery import open_checkpoint


def run_inside_unet(folder: Path) -> tuple[torch.Tensor, ...]:
    adapter = load_model(open_checkpoint(folder), dtype=torch.float32)
    unet: UNet2DConditionModel = build("UNet2DConditionModel", UNET, seed=3)
    model = UNetMotionModel.from_unet2d(unet, adapter).eval()
    inputs = random_inputs("UNetMotionModel", model.config, seed=1, device=torch.device("cpu"), dtype=torch.float32)
    return run_model(model, inputs)


def test_inside_a_unet(tmp_path: Path) -> None:
    base = save(tmp_path / "base", ROW.class_name, ROW.tiny)
    (expected,) = run_inside_unet(base)
    (grown,) = run_inside_unet(grow(base, tmp_path / "zero", blocks=2))
    (copied,) = run_inside_unet(grow(base, tmp_path / "copy", blocks=2, init="copy"))
    assert torch.equal(grown, expected)
    assert not torch.equal(copied, expected)
