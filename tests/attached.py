"""Checkpoints with a slot for a language model, written by surgery, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from architectures import ARCHITECTURES, Architecture

from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.probes import RUNNERS, random_inputs
from modelgrow.surgery import anatomies, execute, open_checkpoint, open_source
from modelgrow.surgery.attach_job import prepare_attach_llm
from modelgrow.surgery.attach_llm import AttachOptions
from modelgrow.surgery.grown import stock_name
from modelgrow.surgery.language_model import LanguageModel, open_language_model

WIDTH = 20
LLM = LanguageModel(name="somebody/llm", dim=WIDTH, class_name="LlamaForCausalLM")

ROWS = tuple(row for row in ARCHITECTURES if any(stack.slot for stack in anatomies()[row.class_name].stacks))
_FIRST = tuple({row.class_name: row for row in reversed(ROWS)}.values())[::-1]
CLASSES: tuple[Architecture, ...] = tuple(row for row in _FIRST if not row.class_name.startswith("ExVideo"))
"""One row of each class that can have a slot, without ExVideo's, whose slots stand behind SVD's own blocks."""


def attach(base: Path, output: Path, llm: Path | None = None, **options: Any) -> Path:
    """Give a checkpoint a slot: for a language model that is in a folder, or for one that is nowhere."""
    found = LLM if llm is None else open_language_model(str(llm))
    return execute(prepare_attach_llm(open_source(str(base)), AttachOptions(llm=found, **options)), output)


def config_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return loaded


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return load_model(open_checkpoint(folder), dtype=dtype)


def enliven(model: Any, *, seed: int = 9) -> Any:
    """The slot's output is noise instead of zero: it has learned something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "llm_attn.to_out" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def inputs_of(model: Any, *, seed: int = 1, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Random ones, and states of a language model if the model reads them."""
    name = type(model).__name__
    return random_inputs(name, model.config, seed=seed, device=torch.device("cpu"), dtype=dtype)


def without_llm(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if not name.startswith("llm_")}


def outputs(model: Any, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
    """With gradients, unlike `probes.run_model`."""
    runner = RUNNERS.get(stock_name(type(model).__name__))
    if runner is not None:
        return runner(model, dict(inputs))
    return tuple(value for value in model(**inputs, return_dict=False) if isinstance(value, torch.Tensor))


def equal(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
