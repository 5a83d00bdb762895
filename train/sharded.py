"""Tensors that FSDP2 has split over the processes: whole ones for files, parts of them for a run that goes on."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU, with every process's part in it. Where it is split, all processes must call."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def split_like(value: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """A whole tensor where `tensor` is, and split as it is."""
    if isinstance(tensor, DTensor):
        return distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements)
    return value.to(tensor.device)


def whole_state(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state dict with whole tensors."""
    rows = {
        number: {key: whole(value) if isinstance(value, torch.Tensor) else value for key, value in row.items()}
        for number, row in state["state"].items()
    }
    return {**state, "state": rows}


def split_state(state: dict[str, Any], parameters: list[torch.nn.Parameter]) -> dict[str, Any]:
    """The way back: moments split as their parameters are; a count of steps stays whole."""
    rows = {
        number: {
            key: split_like(value, parameters[number])
            if isinstance(value, torch.Tensor) and value.shape == parameters[number].shape
            else value
            for key, value in row.items()
        }
        for number, row in state["state"].items()
    }
    return {**state, "state": rows}


def is_split(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, DTensor)
