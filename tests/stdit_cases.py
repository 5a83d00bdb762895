"""The reference's tensors for Open-Sora's transformers, and how they are fed to ours.

A case's folder is a published one: the reference's arguments as config.json and its weights under its names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from modelgrow.pipelines import STDiT3Transformer3DModel, STDiTTransformer3DModel

GOLDENS = Path(__file__).parent / "goldens"
CLASSES: dict[str, Any] = {"stdit3": STDiT3Transformer3DModel, "stdit1": STDiTTransformer3DModel}
NAMES = {
    "x": "hidden_states",
    "y": "encoder_hidden_states",
    "mask": "encoder_attention_mask",
    "x_mask": "frame_mask",
}
"""The reference's names of inputs -> ours, where they differ."""


def inputs_of(case: str) -> dict[str, torch.Tensor]:
    """A case's inputs by the names of our forward, its frame mask too where it has one."""
    tensors = load_file(GOLDENS / case / "inputs.safetensors")
    return {NAMES.get(name, name): tensor for name, tensor in tensors.items()}


def outputs_of(case: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDENS / case / "outputs.safetensors")


def load_case(case: str, folder: Path, **options: Any) -> Any:
    """Our model from a folder as it is published."""
    return class_of(case).from_pretrained(publish(case, folder), **options)


def class_of(case: str) -> Any:
    return CLASSES[case.partition("/")[0]]


def publish(case: str, folder: Path) -> Path:
    """A folder as the reference's authors lay it out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, ours in (("config.json", "config.json"), ("weights.safetensors", "model.safetensors")):
        (folder / ours).write_bytes((GOLDENS / case / name).read_bytes())
    return folder


def run(model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        sample: torch.Tensor = model(**inputs, return_dict=False)[0]
    return sample
