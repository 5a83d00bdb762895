"""A device that is none: tensors that say they lie on it, and are refused beside those of the CPU, as a GPU's are.

Their bytes lie on the CPU, which computes with them, so that a whole run can be held against one of the CPU. torch has
no AMP on such a device, so precision is "no" here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_aten = torch.ops.aten
_MOVES = (_aten.copy_.default, _aten._to_copy.default)
_INDEXED = (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default)
"""Whose indices may lie on the CPU."""


class _Module:
    """What torch asks of a device's module."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        del seed

    @staticmethod
    def get_rng_state(device: Any = None) -> torch.Tensor:
        del device
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, device: Any = None) -> None:
        del device
        torch.set_rng_state(state)

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float32]


_setup_privateuseone_for_python_backend("pretend", backend_module=_Module())
DEVICE = torch.device("pretend", 0)


class There(torch.Tensor):
    """A tensor on the device; `here` are its values."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> Any:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=DEVICE,
            requires_grad=False,
        )
        made.here = here
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"There({self.here})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Pretend(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
            return func(*args, **(kwargs or {}))  # fake tensors know of devices themselves
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    there = [value for value in flat if isinstance(value, There)]
    asked = kwargs.get("device")
    onto = asked is not None and torch.device(asked).type == DEVICE.type
    if not there and not onto:
        return func(*args, **kwargs)
    _check(func, flat, kwargs, onto)
    place = torch.device("cpu") if asked is not None else None
    inside, named = tree_map_only(There, lambda value: value.here, (args, kwargs))
    if place is not None:
        named = {**named, "device": place}
    output = func(*inside, **named)
    if func is _aten._local_scalar_dense.default or (asked is not None and not onto):
        return output
    if func is _aten.copy_.default and not isinstance(args[0], There):
        return args[0]
    wrapped = tree_map_only(torch.Tensor, There, output)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if there else wrapped


def _check(func: Any, flat: list[torch.Tensor], kwargs: dict[str, Any], onto: bool) -> None:
    if onto and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: a generator of the CPU can't draw on {DEVICE}")
    if func in _MOVES or not any(isinstance(value, There) for value in flat):
        return
    if func in _INDEXED:
        flat = flat[:1] + flat[-1:] * (func is not _aten.index.Tensor)
    apart = [value for value in flat if not isinstance(value, There) and value.ndim]
    if apart:
        raise RuntimeError(f"{func}: expected one device, found cpu {tuple(apart[0].shape)} and {DEVICE}")


@contextmanager
def pretending() -> Iterator[torch.device]:
    """Inside, tensors can be made on the device that is given, and moved there."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(..., device=DEVICE) looks for a kernel of its own
    try:
        with _Pretend():  # type: ignore[no-untyped-call]
            yield DEVICE
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
