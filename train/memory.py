"""How much memory a step will take, before it is taken: the model run once on tensors that have shapes and no bytes.

At the fullest moment there are the weights, the optimizer's state, an average, and what the step itself holds: what the
forward pass keeps, what the backward pass has made of gradients so far, and what either makes on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map_only

from modelgrow.pipelines.activations import TensorPeak, as_fake

from .cost import keeping
from .quantize import by_shape, is_quantized, model_bytes
from .unmasked import Unmasked

WHOLE_BELOW = 4096
"""Values of a tensor whose moments bitsandbytes leaves in float32."""
BLOCK = 256
"""Values that share a float32 scale there."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on the device at the fullest moment of a step."""

    weights: int
    optimizer: int
    average: int
    """Of the trained parameters, where they are averaged."""
    gradients: int
    activations: int | None
    """What the forward pass keeps for the backward one; None where that depends on more than shapes."""
    step: int | None
    """The most that the step itself holds at a time, of gradients, activations and what is made on the way."""

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.average + (self.gradients if self.step is None else self.step)

    def split(self, processes: int) -> Memory:
        """The same where FSDP2 splits all that is kept between steps."""
        share = {
            name: -(-getattr(self, name) // processes) for name in ("weights", "optimizer", "average", "gradients")
        }
        step = None if self.step is None else self.step - self.gradients + share["gradients"]
        return replace(self, **share, step=step)

    def zero(self, processes: int) -> Memory:
        """The same with DeepSpeed's ZeRO: it splits the optimizer's state, and keeps a copy of what it belongs to."""
        share = self.gradients + self.optimizer
        return replace(self, optimizer=-(-share // processes))

    def doubled(self) -> Memory:
        """The same with DDP, which keeps gradients a second time, in the pieces that it sends."""
        return replace(self, step=None if self.step is None else self.step + self.gradients)

    @property
    def sentence(self) -> str:
        unit, digits, by = ("GB", 2, 1e9) if self.total >= 1e9 else ("MB", 1, 1e6)

        def told(value: int) -> str:
            return f"{value / by:.{digits}f}"

        fixed = ", ".join(f"{name} {told(getattr(self, name))}" for name in ("weights", "optimizer", "average"))
        peak = f"predicted peak {told(self.total)} {unit}"
        if self.step is None or self.activations is None:
            return (
                f"{peak} ({fixed}, gradients {told(self.gradients)}), and what a step keeps, which this model does "
                "not tell before it runs"
            )
        return (
            f"{peak} ({fixed}, a step {told(self.step)}: it keeps activations of {told(self.activations)}, and makes "
            f"gradients of {told(self.gradients)})"
        )


def predict_memory(
    model: torch.nn.Module,
    predict: Callable[[Any, Mapping[str, Any]], torch.Tensor],
    inputs: Mapping[str, Any],
    *,
    optimizer: str,
    average: bool,
    autocast: Callable[[], AbstractContextManager[Any]],
    accumulate: int = 1,
    beside: int = 0,
    device: torch.device | None = None,
) -> Memory:
    """Predict a step's peak without a byte of the device's memory.

    Args:
        model: With gradients required just where they will be.
        predict: Calls a model with `inputs`.
        inputs: Tensors of the true shapes and dtypes, by name; tables of tensors too.
        optimizer: "adamw" or "adamw8bit".
        average: Whether trained parameters are averaged.
        autocast: The context that the run's forward passes stand in.
        accumulate: Passes whose gradients are added up.
        beside: Bytes of a batch that lie there and are no inputs.
        device: Where the step will be, if the model is not there yet.
    """
    place = device or next(model.parameters()).device
    if place.type == "cpu":
        place = torch.device("cpu")  # accelerate counts CPUs, and tensors do not
    trained = [p for p in model.parameters() if p.requires_grad]
    values = sum(p.numel() for p in trained)
    gradients = sum(p.numel() * p.element_size() for p in trained)
    given = tree_map_only(torch.Tensor, lambda tensor: tensor.to(place), dict(inputs))
    found = _passes(model, predict, given, autocast, min(accumulate, 2), place)
    activations, peak = found or (None, None)
    beside += sum(tensor.nbytes for tensor in tree_leaves(given) if isinstance(tensor, torch.Tensor))
    return Memory(
        weights=model_bytes(model),
        optimizer=sum(state_bytes(p.numel(), optimizer) for p in trained),
        average=values * 4 if average else 0,
        gradients=gradients,
        activations=activations,
        step=None if peak is None else max(beside + peak, gradients + scratch_bytes(trained, optimizer, place)),
    )


def _passes(
    model: torch.nn.Module,
    predict: Callable[[Any, Mapping[str, Any]], torch.Tensor],
    inputs: Mapping[str, Any],
    autocast: Callable[[], AbstractContextManager[Any]],
    passes: int,
    device: torch.device,
) -> tuple[int, int] | None:
    """Bytes that are kept for the backward pass, and the most that there are at a time, the model's own left out."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)  # tables that a model keeps as plain attributes
    held = _held(model, fake, device)

    def call(*args: Any, **kwargs: Any) -> Any:
        return functional_call(model, held, args=args, kwargs=kwargs)

    stand_in = _StandIn(call, list(held.values()))
    faked = as_fake(inputs, fake)
    # Some models cut pads off in yet another way, so that shapes depend on what the prompt says.
    with suppress(DynamicOutputShapeException, DataDependentOutputException), fake, Unmasked(), by_shape(model):
        with TensorPeak() as counted:
            for _ in range(passes):
                with keeping(stand_in) as kept, autocast():
                    loss = predict(stand_in, faked).float().square().mean()
                loss.backward()
                del loss
        return sum(kept.values()), counted.peak
    return None


def _held(model: torch.nn.Module, fake: FakeTensorMode, device: torch.device) -> dict[str, torch.Tensor]:
    """The model's tensors by name, without bytes and on the device."""
    held: dict[str, torch.Tensor] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device.type == device.type:
            # A fake remembers what it was made from, and a quantized parameter that is remembered can't be moved.
            held[name] = fake.from_tensor(tensor.detach() if is_quantized(tensor) else tensor)
        else:
            with fake:
                made = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            held[name] = made.requires_grad_(tensor.requires_grad)
    return held


def state_bytes(values: int, optimizer: str) -> int:
    """Two moments of a tensor: float32, or a byte each and a float32 scale per block."""
    if optimizer == "adamw8bit" and values >= WHOLE_BELOW:
        return 2 * (values + 4 * -(-values // BLOCK))
    return 8 * values


def scratch_bytes(trained: list[torch.nn.Parameter], optimizer: str, device: torch.device) -> int:
    """What the optimizer's step makes on the way: torch's AdamW the roots of all second moments at once, on a CPU two
    tensors of one parameter's size at a time; bitsandbytes nothing."""
    if optimizer == "adamw8bit" or not trained:
        return 0
    sizes = [parameter.numel() * 4 for parameter in trained]
    return 2 * max(sizes) if device.type == "cpu" else sum(sizes)


class _StandIn(torch.nn.Module):
    """Looks like the model to `predict` and to `keeping`, and holds its fake tensors."""

    def __init__(self, call: Callable[..., Any], tensors: list[torch.Tensor]) -> None:
        super().__init__()
        self.call = call
        self.tensors = tensors

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def parameters(self, recurse: bool = True) -> Any:
        return iter(self.tensors)
