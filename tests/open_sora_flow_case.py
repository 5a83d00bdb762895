"""The reference's tensors for sampling and training Open-Sora 1.2's flow, and the tiny models they were made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from modelgrow.pipelines import STDiT3Transformer3DModel
from modelgrow.pipelines.open_sora.denoise import Denoiser
from modelgrow.pipelines.open_sora.text import TextStates, null_caption

GOLDENS = Path(__file__).parent / "goldens" / "rflow"


def load_model(case: str) -> Any:
    config = json.loads((GOLDENS / case / "config.json").read_text())
    config.pop("sampler", None)
    model: Any = STDiT3Transformer3DModel.from_config(config)
    model.load_state_dict(load_file(GOLDENS / case / "weights.safetensors"))
    return model.eval()


def tensors(case: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDENS / case / "inputs.safetensors") | load_file(GOLDENS / case / "outputs.safetensors")


def denoiser(model: Any, case: dict[str, torch.Tensor], *, height: float, width: float) -> Denoiser:
    """Of the prompts of `t2v`, guided by 7."""
    text = TextStates(states=case["y"][:, 0], mask=case["text_mask"])
    guided = text.guided_by(null_caption(model, text))
    return Denoiser(transformer=model, text=guided, fps=24, height=height, width=width)
