"""Frozen weights in fewer bits, by the libraries that diffusers quantizes with. What trains is never quantized.

    y = dequantize(codes, scales) x + b

A run with them is of an approximation to the base; what it saves is the base's own weights with what was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType
from torch.nn.parallel import DistributedDataParallel

from modelgrow.pipelines.dtypes import FROM_STORED
from modelgrow.surgery import TrainError
from modelgrow.surgery.readback import read_chunks

from .select import grown_names

if TYPE_CHECKING:
    from accelerate import Accelerator

    from modelgrow.surgery import Checkpoint

    from .settings import Settings

PROBES = 16
"""Random inputs per layer that its error is measured with."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What became of a component's linear layers."""

    kind: str
    layers: int
    """That are quantized."""
    of: int
    """Linear layers in all."""
    error: float
    """Of their answers to random inputs, relative, root mean square."""

    @property
    def sentence(self) -> str:
        return (
            f"{self.kind}: {self.layers} of {self.of} linear layers are quantized while this trains, and answer with "
            f"a relative error of {self.error:.2%}, so step 0 is not the base to the bit. The result holds the base's "
            "own weights"
        )


def quantization(settings: Settings, checkpoint: Checkpoint, place: str, accelerator: Accelerator) -> Any:
    """The `PipelineQuantizationConfig` to load a pipeline with; None where nothing is quantized.

    Args:
        settings: What trains, and how the rest is quantized.
        checkpoint: Of the component that trains.
        place: What that is called in the pipeline.
        accelerator: Of the run.

    Raises:
        TrainError: The library is missing or does not run here, or nothing would be frozen.
    """
    if settings.quantize == "none":
        return None
    package = settings.quantize.split("-", maxsplit=1)[0]
    if settings.train == "all":
        raise TrainError(f"quantize {settings.quantize} with train all: nothing is frozen, so nothing can be quantized")
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise TrainError(
            f"quantize {settings.quantize} with {accelerator.distributed_type.value}: quantized weights are not split "
            "over processes; use DDP, or no quantization"
        )
    if find_spec(package) is None:
        raise TrainError(f"quantize {settings.quantize} needs {package}, which is not installed: pip install {package}")
    if package == "bitsandbytes" and accelerator.device.type == "cpu":
        raise TrainError(f"quantize {settings.quantize}: diffusers runs it on a GPU only; torchao-int8 runs on a CPU")
    from diffusers import PipelineQuantizationConfig

    config = _config(settings.quantize, whole_modules(checkpoint, settings.train))
    return PipelineQuantizationConfig(quant_mapping={place: config})


def _config(kind: str, whole: list[str]) -> Any:
    from diffusers import BitsAndBytesConfig, TorchAoConfig

    if kind == "torchao-int8":
        int8 = import_module("torchao.quantization").Int8WeightOnlyConfig()
        return TorchAoConfig(int8, modules_to_not_convert=whole)
    if kind == "bitsandbytes-int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=whole)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=whole,
    )


def whole_modules(checkpoint: Checkpoint, train: str) -> list[str]:
    """Modules with a weight or bias that trains, by full name: those stay as they are. A LoRA's weights are its own."""
    if train == "lora" or checkpoint.record is None:
        return []
    parts = [name.rpartition(".") for name in grown_names(checkpoint.tensors, checkpoint.record, train)]
    return sorted({module for module, _, leaf in parts if module and leaf in ("weight", "bias")})


def look(model: torch.nn.Module, checkpoint: Checkpoint, kind: str) -> Quantized:
    """What was quantized, held against the weights on disk. Raises `TrainError` if nothing was."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    quantized = {name: module for name, module in linear.items() if is_quantized(module.weight)}
    if not quantized:
        raise TrainError(f"quantize {kind}: {type(model).__name__} has no linear layer that does not train")
    return Quantized(kind=kind, layers=len(quantized), of=len(linear), error=_error(model, checkpoint, quantized))


def leave_apart(model: torch.nn.Module) -> None:
    """Tell DDP not to send quantized weights around: every process has read the same, and they can't be sent."""
    names = [name for name, parameter in model.named_parameters() if is_quantized(parameter)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)


def is_quantized(tensor: torch.Tensor) -> bool:
    """Whether a library has put a class of its own in a parameter's place."""
    return isinstance(tensor, torch.nn.Parameter) and type(tensor) is not torch.nn.Parameter


@torch.no_grad()
def _error(model: torch.nn.Module, checkpoint: Checkpoint, layers: dict[str, torch.nn.Linear]) -> float:
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point() and not is_quantized(p))
    generator = torch.Generator().manual_seed(0)
    apart = size = 0.0
    for name, layer in layers.items():
        stored = checkpoint.tensors[f"{name}.weight"]
        data = torch.frombuffer(bytearray(b"".join(read_chunks(stored))), dtype=FROM_STORED[stored.dtype])
        weight = data.view(stored.shape).to(layer.weight.device, dtype)
        given = torch.randn(PROBES, weight.shape[1], generator=generator).to(weight.device, dtype)
        bias = None if layer.bias is None else layer.bias.to(dtype)
        exact = torch.nn.functional.linear(given, weight, bias)
        apart += float((layer(given) - exact).float().square().sum())
        size += float(exact.float().square().sum())
    return float((apart / size) ** 0.5) if size else 0.0


def parts_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that hold a tensor's bytes: itself, or the codes and scales that a library keeps in its place."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return [part for name in names for part in parts_of(getattr(tensor, name))]
    parts = [tensor]
    state = getattr(tensor, "quant_state", None)  # bitsandbytes, 4 bits; its scales may be quantized in turn
    while state is not None:
        parts += [state.absmax, state.code]
        state = getattr(state, "state2", None)
    scales = getattr(tensor, "SCB", None)  # bitsandbytes, 8 bits
    return parts if scales is None else [*parts, scales]


class _ByShape(torch.autograd.Function):
    """A linear layer of which only the shapes are asked."""

    @staticmethod
    def forward(ctx: Any, given: torch.Tensor, width: int, keeps: bool) -> torch.Tensor:
        ctx.inner = given.shape[-1]
        if keeps:
            ctx.save_for_backward(given)
        return given.new_empty(*given.shape[:-1], width)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradients[0].new_empty(*gradients[0].shape[:-1], ctx.inner), None, None


@contextmanager
def by_shape(model: torch.nn.Module) -> Iterator[None]:
    """Inside, layers of bitsandbytes can be called on fake tensors, which its own code can't be.

    With 8 bits it keeps what a layer was given for the backward pass, with 4 it does not.
    """
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    patched: list[Any] = [
        layer for layer in linear if is_quantized(layer.weight) and not hasattr(layer.weight, "__tensor_flatten__")
    ]
    for layer in patched:
        layer.forward = _answer(layer.out_features, keeps=not hasattr(layer.weight, "quant_state"))
    try:
        yield
    finally:
        for layer in patched:
            del layer.forward


def _answer(width: int, *, keeps: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    by_shapes: Any = _ByShape
    return lambda given: by_shapes.apply(given, width, keeps)


def model_bytes(model: torch.nn.Module) -> int:
    """What a model's parameters and buffers take in memory."""
    return sum(map(bytes_of, (*model.parameters(), *model.buffers())))


def bytes_of(tensor: torch.Tensor) -> int:
    """What a tensor takes in memory."""
    return sum(part.numel() * part.element_size() for part in parts_of(tensor))
