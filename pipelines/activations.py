"""What a module makes while it runs, counted on fake tensors: they have shapes, dtypes and devices, and no bytes."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
