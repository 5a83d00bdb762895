"""How much memory a clip takes: predicted before the first step, on tensors without bytes, and measured after the last.

A prediction runs a module on fake tensors of the very shapes that it is called with, and adds up what is alive at the
fullest moment. What one operation needs for itself (a convolution's workspace) comes on top.
"""

from __future__ import annotations

import resource
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


class TensorPeak(TorchDispatchMode):
    """Counts bytes of the tensors that are made inside, each storage once and until it is freed. A view of something
    older makes nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: int = 0
        self.peak: int = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._note(tensor.untyped_storage(), made=False)
        output = func(*args, **(kwargs or {}))
        for tensor in _tensors(output):
            self._note(tensor.untyped_storage(), made=True)
        return output

    def _note(self, storage: Any, *, made: bool) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes() if made else 0
            self.held += self._sizes[key]
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.held -= self._sizes.pop(key)


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def activation_bytes(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """The most bytes that a forward pass without gradients holds at a time, inputs and weights not counted.

    The module may be offloaded; its hooks are left out.

    Raises:
        UnsupportedFakeTensorException and its like: The module looks at values, which fake tensors have not.
    """
    device = next((value.device for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        held = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            for name, tensor in (*module.named_parameters(), *module.named_buffers())
        }
    given, named = as_fake(args, mode), as_fake(dict(kwargs), mode)
    with _unhooked(module), torch.no_grad(), mode, TensorPeak() as counted:
        functional_call(module, held, given, named)
    peak: int = counted.peak
    return peak


def as_fake(value: Any, mode: FakeTensorMode) -> Any:
    """The tensors in a value, as fake ones of the same shapes, dtypes, devices; also those in tuples, lists, mappings.

    A list is another one: Wan's VAE keeps what its layers have seen in lists that it gives them.
    """
    if isinstance(value, torch.Tensor):
        return mode.from_tensor(value)
    if isinstance(value, tuple):
        return tuple(as_fake(item, mode) for item in value)
    if isinstance(value, list):
        return [as_fake(item, mode) for item in value]
    if isinstance(value, Mapping):
        return {name: as_fake(item, mode) for name, item in value.items()}
    return value


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


@contextmanager
def _unhooked(module: torch.nn.Module) -> Iterator[None]:
    """diffusers and accelerate hook a module by a `forward` of its own, before its class's."""
    kept = {part: part.__dict__.pop("forward") for part in module.modules() if "forward" in part.__dict__}
    calls = {part: part._forward_pre_hooks.copy() for part in module.modules() if part._forward_pre_hooks}
    for part in calls:
        part._forward_pre_hooks.clear()
    try:
        yield
    finally:
        for part, forward in kept.items():
            part.__dict__["forward"] = forward
        for part, hooks in calls.items():
            part._forward_pre_hooks.update(hooks)


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
