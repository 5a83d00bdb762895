"""Random inputs of the right shapes: one file of recipes per family.

Small on purpose: two samples, few frames, few tokens. Every optional input that the config asks for
is there, so that no branch of the model is skipped.

Shape letters: B samples, C channels, F latent frames, H, W latent height and width, L text tokens,
S video tokens, D width of a text or image state.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import torch

from modelgrow.surgery import VerifyError
from modelgrow.surgery.grown import stock_name

from .recipe import B, Config, Inputs, L, Randn, Recipe, Runner

_FAMILIES: tuple[Any, ...] = tuple(
    import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__) if module.name != "recipe"
)

RECIPES: Mapping[str, Recipe] = {name: recipe for family in _FAMILIES for name, recipe in family.RECIPES.items()}
RUNNERS: Mapping[str, Runner] = {
    name: runner for family in _FAMILIES for name, runner in getattr(family, "RUNNERS", {}).items()
}


def random_inputs(class_name: str, config: Config, *, seed: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Keyword arguments for one `forward`. The same seed gives the same inputs on every device.

    Floating-point inputs are of the model's dtype, except timesteps and rotary tables, which stay float32.

    Raises:
        VerifyError: There is no recipe for the class.
    """
    name = stock_name(class_name)
    if name not in RECIPES:
        raise VerifyError(f"no input recipe for {class_name}; known are {', '.join(RECIPES)}")
    generator = torch.Generator().manual_seed(seed)
    # A slot's inputs are drawn last, so that a model with one and its base are given the same others.
    inputs = RECIPES[name](config, randn := lambda *shape: torch.randn(shape, generator=generator))
    if config.get("llm_slot"):
        inputs |= _llm(config["llm_slot"], randn)
    return {name: _place(value, device, dtype, keep=name == "timestep") for name, value in inputs.items()}


def _llm(slot: Config, randn: Randn) -> Inputs:
    """States of a language model for every sample; the first one's text is shorter than the others'."""
    mask = torch.ones(B, L, dtype=torch.bool)
    mask[0, L // 2 :] = False
    return {"llm_hidden_states": randn(B, L, slot["llm_dim"]), "llm_attention_mask": mask}


def run_model(model: Any, inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """All outputs of one forward pass, without gradients."""
    runner = RUNNERS.get(stock_name(type(model).__name__))
    with torch.no_grad():
        if runner is not None:
            return runner(model, inputs)
        return tuple(output for output in model(**inputs, return_dict=False) if isinstance(output, torch.Tensor))


def _place(value: Any, device: torch.device, dtype: torch.dtype, *, keep: bool) -> Any:
    if isinstance(value, tuple):
        return tuple(_place(item, device, torch.float32, keep=keep) for item in value)
    if isinstance(value, torch.Tensor):
        return value.to(device=device, dtype=dtype if value.is_floating_point() and not keep else None)
    return value
