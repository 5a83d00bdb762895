"""Masks that cut nothing, for a prediction on tensors that have shapes and no values.

Some models cut a caption's padding off by a mask, or ask whether there is an image. On fake tensors neither can be
answered. Here every token counts, which is the most that a caption can take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_INVERTED = (torch.Tensor.__invert__, torch.logical_not, torch.Tensor.logical_not, torch.bitwise_not)


class Unmasked(TorchFunctionMode):
    """Inside, a boolean mask as an index takes all there is, and its inverse (`~mask`) nothing; `nonzero` finds all
    places of a row. A tensor in a condition counts as true."""

    def __init__(self) -> None:
        super().__init__()
        self._inverted: list[torch.Tensor] = []
        """Kept, so that none of them can be taken for another one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__bool__ and args[0].numel() == 1:
            return True
        if func is torch.Tensor.__getitem__:
            return self._taken(func, *args)
        if func in (torch.nonzero, torch.Tensor.nonzero) and args[0].ndim == 1 and not (kwargs or {}).get("as_tuple"):
            return torch.arange(len(args[0]), device=args[0].device)[:, None]
        output = func(*args, **(kwargs or {}))
        if func in _INVERTED and output.dtype == torch.bool:
            self._inverted.append(output)
        return output

    def _taken(self, func: Callable[..., Any], tensor: torch.Tensor, index: Any) -> Any:
        """`tensor[index]`, with a slice in a mask's place. A mask over several axes is left to fail."""
        places = index if isinstance(index, tuple) else (index,)
        return func(tensor, tuple(self._slice(place) for place in places))

    def _slice(self, place: Any) -> Any:
        if not isinstance(place, torch.Tensor) or place.dtype != torch.bool or place.ndim != 1:
            return place
        return slice(0) if any(place is mask for mask in self._inverted) else slice(None)
