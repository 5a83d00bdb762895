"""A denoiser that takes the clips of its batch one after the other: guidance makes two of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook

NAME = "modelgrow_one_clip"
Call = tuple[tuple[Any, ...], dict[str, Any]]


class OneClipHook(ModelHook):
    """Splits tensors by their first dimension and joins what comes out: the first of a tuple or the sample."""

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        outputs = [self.fn_ref.original_forward(*a, **k) for a, k in split(args, kwargs)]
        if isinstance(outputs[0], tuple):
            return (torch.cat([output[0] for output in outputs]),)
        return type(outputs[0])(sample=torch.cat([output.sample for output in outputs]))


def one_clip_at_a_time(module: torch.nn.Module) -> None:
    """Let a UNet of Stable Video Diffusion's kind, all of whose tensors have the batch first, run clip by clip."""
    registry = HookRegistry.check_if_exists_or_initialize(module)
    if registry.get_hook(NAME) is None:
        registry.register_hook(OneClipHook(), NAME)


def as_it_runs(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """The arguments of one forward pass: of the first clip if the module runs clip by clip, else of all."""
    registry = getattr(module, "_diffusers_hook", None)
    if registry is None or registry.get_hook(NAME) is None:
        return args, dict(kwargs)
    return split(args, kwargs)[0]


def split(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Call]:
    """A call of a batch as calls of its clips. Numbers, and tensors without dimensions, go to each."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.ndim > 1]
    batch = len(tensors[0])

    def part(value: Any, clip: int) -> Any:
        has_batch = isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == batch
        return value[clip : clip + 1] if has_batch else value

    return [
        (tuple(part(value, clip) for value in args), {name: part(value, clip) for name, value in kwargs.items()})
        for clip in range(batch)
    ]
