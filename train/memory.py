"""How much memory a step will take, before it is taken: the model run once on tensors that have shapes and no bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.func import functional_call

from modelgrow.pipelines.memory import as_fake

from .cost import measure_step
from .quantize import by_shape, bytes_of, is_quantized
from .unmasked import Unmasked

WHOLE_BELOW = 4096
"""Values of a tensor whose moments bitsandbytes leaves in float32."""
BLOCK = 256
"""Values that share a float32 scale there."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on the device at the fullest moment of a step: the end of a forward pass, everything else being there."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    """Of the trained parameters, where they are averaged."""
    activations: int | None
    """What the forward pass keeps for the backward one; None where that depends on more than shapes."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average + (self.activations or 0)

    def split(self, processes: int) -> Memory:
        """The same where FSDP2 splits all that is kept between steps."""
        parts = {name: -(-value // processes) for name, value in vars(self).items() if name != "activations"}
        return Memory(**parts, activations=self.activations)

    def zero(self, processes: int) -> Memory:
        """The same with DeepSpeed's ZeRO: it splits the optimizer's state, and keeps a copy of what it belongs to."""
        share = self.gradients + self.optimizer
        return replace(self, optimizer=-(-share // processes))

    @property
    def sentence(self) -> str:
        unit, digits, by = ("GB", 2, 1e9) if self.total >= 1e9 else ("MB", 1, 1e6)
        parts = ", ".join(f"{name} {value / by:.{digits}f}" for name, value in vars(self).items() if value)
        peak = f"predicted peak {self.total / by:.{digits}f} {unit}"
        if self.activations is None:
            return f"{peak} ({parts}), and what a step keeps, which this model does not tell before it runs"
        return f"{peak} ({parts}); what one operation needs for itself comes on top"


def predict_memory(
    model: torch.nn.Module,
    predict: Callable[[Any, Mapping[str, Any]], torch.Tensor],
    inputs: Mapping[str, Any],
    *,
    optimizer: str,
    average: bool,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Memory:
    """Predict a step's peak without a byte of the device's memory.

    Args:
        model: With gradients required just where they will be.
        predict: Calls a model with `inputs`.
        inputs: Tensors of the true shapes and dtypes, by name; tables of tensors too.
        optimizer: "adamw" or "adamw8bit".
        average: Whether trained parameters are averaged.
        autocast: The context that the run's forward passes stand in.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)  # tables that a model keeps as plain attributes
    held: dict[str, torch.Tensor] = {
        # A fake remembers what it was made from, and a quantized parameter that is remembered can't be moved.
        name: fake.from_tensor(p.detach() if is_quantized(p) else p)
        for name, p in (*model.named_parameters(), *model.named_buffers())
    }

    def call(*args: Any, **kwargs: Any) -> Any:
        return functional_call(model, held, args=args, kwargs=kwargs)

    stand_in = _StandIn(call, list(held.values()))
    activations: int | None = None
    # Some models cut pads off in yet another way, so that shapes depend on what the prompt says.
    with suppress(DynamicOutputShapeException, DataDependentOutputException), fake, Unmasked(), autocast():
        faked = as_fake(inputs, fake)
        with by_shape(model):
            cost = measure_step(stand_in, lambda: predict(stand_in, faked).float().square().mean())
        activations = cost.saved_bytes
    trained = [p for p in model.parameters() if p.requires_grad]
    values = sum(p.numel() for p in trained)
    return Memory(
        weights=sum(map(bytes_of, (*model.parameters(), *model.buffers()))),
        gradients=sum(p.numel() * p.element_size() for p in trained),
        optimizer=sum(state_bytes(p.numel(), optimizer) for p in trained),
        average=values * 4 if average else 0,
        activations=activations,
    )


def state_bytes(values: int, optimizer: str) -> int:
    """Two moments of a tensor: float32, or a byte each and a float32 scale per block."""
    if optimizer == "adamw8bit" and values >= WHOLE_BELOW:
        return 2 * (values + 4 * -(-values // BLOCK))
    return 8 * values


class _StandIn(torch.nn.Module):
    """Looks like the model to `predict` and to `measure_step`, and holds its fake tensors."""

    def __init__(self, call: Callable[..., Any], tensors: list[torch.Tensor]) -> None:
        super().__init__()
        self.call = call
        self.tensors = tensors

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def parameters(self, recurse: bool = True) -> Any:
        return iter(self.tensors)
