"""A file of tensors with a few words about them: written whole or not at all, read a row at a time.

Pipelines pad text states with zeros to a fixed length, most of which would be zeros on disk: what is zero
behind the longest caption of a file is left out, and put back when it is read.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from modelgrow.surgery.disk import as_output_error
from modelgrow.surgery.staging import staged_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ABOUT = "modelgrow"


def write(path: Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Write a file durably, over one that is there. Tensors have their rows along the first axis.

    Raises:
        OutputError: The disk is full, or the place is wrong.
    """
    lengths = {name: tensor.shape[1] for name, tensor in tensors.items() if tensor.ndim > 1}
    kept = {name: without_zeros(tensor) for name, tensor in tensors.items()}
    metadata = {_ABOUT: json.dumps({"about": about, "lengths": lengths})}
    num_bytes = sum(tensor.nbytes for tensor in kept.values())
    with staged_file(path, inputs=[], num_bytes=num_bytes, overwrite=True) as place:
        try:
            with place.open("xb") as file:  # `save_file` would make it for this user's eyes only
                file.write(save(kept, metadata=metadata))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise as_output_error(error, path) from error


def without_zeros(tensor: torch.Tensor) -> torch.Tensor:
    """Cut off what is zero in every row at the end of the second axis; one place at least is kept."""
    if tensor.ndim < 2 or not tensor.shape[1]:
        return tensor.contiguous()
    zero = tensor == 0
    if tensor.is_floating_point():
        zero &= ~tensor.signbit()  # a negative zero must come back as one
    used = (~zero).movedim(1, 0).flatten(1).any(dim=1).nonzero()
    length = int(used.max()) + 1 if len(used) else 1
    return tensor[:, :length].contiguous()


def _open(path: Path) -> Any:
    return safe_open(path, framework="pt")


class Stored:
    """Such a file, memory-mapped.

    Raises:
        SafetensorError: It is damaged.
        OSError: It can't be read.
    """

    def __init__(self, path: Path) -> None:
        self._file = _open(path)
        words = json.loads((self._file.metadata() or {}).get(_ABOUT, "{}"))
        self.about: dict[str, Any] = words.get("about", {})
        self._lengths: dict[str, int] = words.get("lengths", {})
        self.names = tuple(self._file.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one row."""
        _, *shape = self._file.get_slice(name).get_shape()
        return (self._lengths[name], *shape[1:]) if shape else ()

    def row(self, name: str, row: int) -> torch.Tensor:
        """One row of a tensor, in memory of its own."""
        stored: torch.Tensor = self._file.get_slice(name)[row : row + 1][0]
        if not stored.ndim:
            return stored.clone()
        whole = stored.new_zeros(self.shape(name))
        whole[: len(stored)] = stored
        return whole
