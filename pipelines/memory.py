"""How much memory a clip takes: predicted before the first step, on tensors without bytes, and measured after the last.

A prediction runs a module on fake tensors of the very shapes that it is called with, and adds up what is alive at the
fullest moment. What one operation needs for itself (a convolution's workspace) comes on top.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
)

from .activations import activation_bytes
from .one_clip import as_it_runs

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

Report = Callable[[str], None]

DENOISERS = ("transformer", "transformer_2", "unet")
"""Components of diffusers' pipelines that run once a step."""
_STATUS, _CLEAR, _MEMINFO = (Path("/proc") / name for name in ("self/status", "self/clear_refs", "meminfo"))
_UNPREDICTABLE = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Bytes at the fullest moment of a module's forward pass."""

    held: int
    """What is on the device already."""
    weights: int
    """Of the module, that will travel there."""
    activations: int

    @property
    def total(self) -> int:
        return self.held + self.weights + self.activations


@contextmanager
def watched(pipeline: DiffusionPipeline, report: Report) -> Iterator[None]:
    """Inside, tell the predicted peak before the first denoising step and before decoding; at the end, the actual one.

    On a GPU that is the memory of torch's tensors there, on a CPU the resident memory of the whole process.
    """
    device = torch.device(pipeline._execution_device)
    handles = [
        module.register_forward_pre_hook(_forecaster(name, device, report), with_kwargs=True)
        for name, module in _heavy(pipeline)
    ]
    reset_peak(device)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    report(f"actual peak {peak_bytes(device) / 1e9:.2f} GB on {device}")


def forecast(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], device: torch.device
) -> Forecast:
    """What a call of the module will take, everything else staying where it is."""
    away = [tensor for tensor in module.parameters() if tensor.device != device]
    weights = sum(tensor.nbytes for tensor in away)
    if _in_groups(module) or any(tensor.is_meta for tensor in away):
        # Layer by layer: this one, and the next one on its way.
        weights = 2 * max(sum(p.nbytes for p in leaf.parameters(recurse=False)) for leaf in module.modules())
    args, kwargs = as_it_runs(module, args, kwargs)
    return Forecast(held=held_bytes(device), weights=weights, activations=activation_bytes(module, args, kwargs))


def room(device: torch.device) -> int | None:
    """Bytes that a device could still give, with what is held; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    if device.type == "cpu" and _MEMINFO.exists():
        return held_bytes(device) + _read(_MEMINFO, "MemAvailable")
    return None


def held_bytes(device: torch.device) -> int:
    """What is in use on a device now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    return _read(_STATUS, "VmRSS") or _max_resident()


def reset_peak(device: torch.device) -> None:
    """Let `peak_bytes` count from now on, where the system can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5", encoding="ascii")


def peak_bytes(device: torch.device) -> int:
    """The most that was in use on a device since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _read(_STATUS, "VmHWM") or _max_resident()


def _heavy(pipeline: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    for name in DENOISERS:
        module = getattr(pipeline, name, None)
        if isinstance(module, torch.nn.Module):
            yield name, module
    decoder = getattr(getattr(pipeline, "vae", None), "decoder", None)
    if isinstance(decoder, torch.nn.Module):
        yield "vae", decoder


def _forecaster(name: str, device: torch.device, report: Report) -> Callable[..., None]:
    told = False

    def before_forward(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal told
        if told:
            return
        told = True
        try:
            found = forecast(module, args, kwargs, device)
        except _UNPREDICTABLE as error:
            report(f"the {name}'s memory can't be predicted: {type(error).__name__}")
            return
        parts = ", ".join(f"{part} {value / 1e9:.2f}" for part, value in vars(found).items() if value)
        there = room(device)
        short = f"; there are {there / 1e9:.2f} GB" if there is not None and there < found.total else ""
        report(f"predicted peak {found.total / 1e9:.2f} GB in the {name} ({parts}){short}")

    return before_forward


def _in_groups(module: torch.nn.Module) -> bool:
    registries = (getattr(part, "_diffusers_hook", None) for part in module.modules())
    return any(registry is not None and registry.get_hook("group_offloading") for registry in registries)


def _read(table: Path, key: str) -> int:
    """Bytes, of Linux's tables of kilobytes; 0 where there is none."""
    if not table.exists():
        return 0
    lines = (line.split() for line in table.read_text(encoding="ascii", errors="replace").splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[:1] == [f"{key}:"]), 0)


def _max_resident() -> int:
    """Of the whole life of the process: kilobytes on Linux, bytes on macOS."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
