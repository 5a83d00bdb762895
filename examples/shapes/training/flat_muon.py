"""torch's Muon for convolutions: each kernel is one matrix, outputs by everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class FlatMuon(torch.optim.Muon):
    """Muon works on matrices alone, so it is given views of the kernels that share their memory."""

    def __init__(self, kernels: Sequence[nn.Parameter], *, lr: float) -> None:
        self.kernels = list(kernels)
        self.matrices = [nn.Parameter(kernel.data.view(len(kernel), -1)) for kernel in self.kernels]
        super().__init__(self.matrices, lr=lr, momentum=0.95, weight_decay=0.0)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step from the kernels' gradients, which are then dropped."""
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.reshape(len(kernel), -1)
            kernel.grad = None
        return super().step(closure)  # type: ignore[no-untyped-call]
