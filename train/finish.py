"""The end of a run: the trained values in a grown folder of the same layout, and a growth by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from modelgrow.surgery import Copy, Job, Plan, PlannedTensor, execute
from modelgrow.surgery.header import read_header
from modelgrow.surgery.plan import Stored

if TYPE_CHECKING:
    from modelgrow.surgery import Checkpoint, Source

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run has to hand over."""

    values: dict[str, torch.Tensor]
    """Trained tensors by name, in the model's own names."""
    told: dict[str, Any]
    """What the record says of the run: data, steps, learning rate and so on."""


def write_model(source: Source, component: str, trained: Trained, output: Path, *, overwrite: bool = False) -> Path:
    """The pipeline with its trained component, every other byte as it was. Values take the stored dtype.

    The record gets the run as one more step; a model that never grew, and has none, gets none.

    Raises:
        GrowError: See `execute`.
    """
    checkpoint = next(part.checkpoint for part in source.components if part.name == component)
    if checkpoint is None:
        raise ValueError(component)
    values = output.with_name(f".{output.name}.trained.safetensors")
    values.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(
            {
                name: value.detach().to("cpu", DTYPES.get(checkpoint.tensors[name].dtype, value.dtype)).contiguous()
                for name, value in trained.values.items()
            },
            values,
        )
        plan = plan_train(checkpoint, values, trained)
        plan.validate(checkpoint)
        job = Job(
            source=source,
            checkpoints={component: checkpoint},
            plans={component: plan},
            records={} if checkpoint.record else {component: None},
        )
        return execute(job, output, overwrite=overwrite)
    finally:
        values.unlink(missing_ok=True)


def plan_train(checkpoint: Checkpoint, values: Path, trained: Trained) -> Plan:
    """The checkpoint's tensors in their places, with what was trained from another file."""
    stored = read_header(values).tensors
    tensors = tuple(
        PlannedTensor(
            name=name,
            dtype=tensor.dtype,
            shape=tensor.shape,
            content=Stored(tensor=stored[name]) if name in stored else Copy(source=name),
        )
        for name, tensor in checkpoint.tensors.items()
    )
    return Plan(operation="train", options=trained.told, class_name=str(checkpoint.class_name), tensors=tensors)
