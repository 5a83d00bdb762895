"""The end of a run: the trained values in a grown folder of the same layout, and a growth by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from modelgrow.pipelines.dtypes import FROM_STORED
from modelgrow.pipelines.motion_adapter import NAME, is_motion
from modelgrow.surgery import Copy, Job, Plan, PlanError, PlannedTensor, execute, open_source
from modelgrow.surgery.content import Stored
from modelgrow.surgery.disk import write_text
from modelgrow.surgery.header import read_header
from modelgrow.surgery.job import made_with
from modelgrow.surgery.pack import prepare_pack, write_pack
from modelgrow.surgery.staging import staged_file

from .card import CARD_NAME, model_card
from .progress import EDGE
from .sharded import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from modelgrow.surgery import Checkpoint, Source

    from .loop import Loop
    from .setup import Run


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run has to hand over."""

    values: dict[str, torch.Tensor]
    """Trained tensors by name, in the model's own names."""
    told: dict[str, Any]
    """What the record says of the run: data, steps, learning rate and so on."""


def finish(run: Run, loop: Loop, tell: Callable[[str], None]) -> tuple[Path, Path | None]:
    """Write the model, with averaged values where the run averaged them, and the growth by itself.

    Returns the model's folder, and the growth's, None where there is none: a LoRA, a model that never grew, or
    weights trained that the base has too, so that only a comparison with the base would tell what to pack.
    """
    output, growth = run.folder / "model", run.folder / "growth"
    averaged = loop.ema.shadow_params if loop.ema else [parameter for _, parameter in run.trained]
    values = {name: whole(value) for name, value in zip(loop.names, averaged, strict=True)}
    packs = run.record is not None and set(loop.names) <= {*run.record.new, *run.record.changed}
    if run.accelerator.is_main_process:
        tell("writing the model")
        if run.settings.train == "lora":
            save_lora(run, values, output)
        else:
            told = tell_of(run, loop)
            trained = Trained(values=values, told=told)
            write_model(run.source, run.component.name, trained, output, overwrite=True, link=run.settings.link)
            write_card(run, loop, told, output)
        if packs:
            tell("packing the growth")
            packs = pack(output, growth)
    run.accelerator.wait_for_everyone()
    return output, growth if packs else None


def pack(model: Path, output: Path) -> bool:
    """Pack a trained growth. False where only the base would tell what it changed in tensors that the base has too."""
    try:
        packing = prepare_pack(open_source(str(model)))
    except PlanError:
        return False
    write_pack(packing, output, overwrite=True)
    return True


def tell_of(run: Run, loop: Loop) -> dict[str, Any]:
    """What growth.json says of a run: what trained on what, for how long."""
    settings = run.settings
    return {
        "data": Path(settings.data).name if Path(settings.data).exists() else settings.data,
        "clips": sum(bucket.clips for bucket in run.data.buckets),
        "train": settings.train,
        "steps": loop.step,
        "batch_size": settings.batch_size * settings.accumulate * run.accelerator.num_processes,
        "learning_rate": settings.learning_rate,
        "ema_decay": settings.ema_decay,
        "seed": settings.seed,
        "seconds": round(loop.seconds, 1),
        **({"quantize": settings.quantize} if run.quantized else {}),
        **({"pipeline": run.chosen.around.name} if run.chosen.is_alone else {}),
    }


def write_card(run: Run, loop: Loop, told: dict[str, Any], output: Path) -> None:
    """README.md in the place of the base's."""
    place = output / CARD_NAME
    carried = place.read_text(encoding="utf-8", errors="replace") if place.is_file() else ""
    last = loop.losses[-EDGE:]
    device = torch.cuda.get_device_name() if run.accelerator.device.type == "cuda" else run.accelerator.device.type
    more = {
        "name": f"{run.source.name}, trained",
        "parameters": run.num_trained,
        "buckets": [vars(bucket) for bucket in run.data.buckets],
        "controls": [control.name for control in run.data.controls if control.read],
        "schedule": run.settings.schedule,
        "cache_trunk": run.settings.cache_trunk,
        "first_loss": loop.first_loss,
        "last_loss": sum(last) / len(last) if last else loop.average,
        "validation_loss": loop.validation,
        "device": f"{run.accelerator.num_processes} x {device}{', FSDP2' if run.is_split else ''}",
        "made_with": made_with(),
        "runs_in": type(run.pipeline).__name__,
        "argument": NAME if run.chosen.is_adapter else run.chosen.place,
    }
    text = model_card(output, run.component.name, {**told, **more}, carried)
    with staged_file(place, inputs=[], overwrite=True) as partial:
        write_text(partial, text)


def save_lora(run: Run, values: dict[str, torch.Tensor], output: Path) -> None:
    """The LoRA as diffusers takes it: a pipeline's `load_lora_weights`, or, of those without, a model's
    `load_lora_adapter` with the component's name as `prefix`. A second transformer's has the first one's name, and is
    loaded with `load_into_transformer_2=True`."""
    from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
    from peft import get_peft_model_state_dict

    name, layers = run.chosen.place, get_peft_model_state_dict(run.model, state_dict=values)
    if hasattr(run.pipeline, "save_lora_weights"):
        run.pipeline.save_lora_weights(output, **{f"{name.removesuffix('_2')}_lora_layers": layers})
        return
    output.mkdir(parents=True, exist_ok=True)
    packed = {f"{name}.{key}": value.detach().cpu().contiguous() for key, value in layers.items()}
    save_file(packed, output / LORA_WEIGHT_NAME_SAFE, metadata={"format": "pt"})


def write_model(
    source: Source, component: str, trained: Trained, output: Path, *, overwrite: bool = False, link: bool = False
) -> Path:
    """What was named with its trained component, every other byte as it was. Values take the stored dtype.

    The record gets the run as one more step; a model that never grew, and has none, gets none. A motion adapter that
    lies beside the UNet that it was plugged into goes along.

    Raises:
        GrowError: See `execute`.
    """
    checkpoints = written(source, component, trained.values)
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        plans = {}
        for number, (name, checkpoint) in enumerate(checkpoints.items()):
            values = Path(folder, f"{number}.safetensors")
            names = [key for key in trained.values if name == component or key in checkpoint.tensors]
            save_values(checkpoint, {key: trained.values[key] for key in names}, values)
            plans[name] = plan_train(checkpoint, values, trained)
            plans[name].validate(checkpoint)
        records = {name: None for name, checkpoint in checkpoints.items() if checkpoint.record is None}
        job = Job(source=source, checkpoints=checkpoints, plans=plans, records=records)
        return execute(job, output, overwrite=overwrite, link=link)


def written(source: Source, component: str, trained: Iterable[str]) -> dict[str, Checkpoint]:
    """The component; and a motion adapter beside a UNet that holds the same modules, some of which trained."""
    parts = {part.name: part.checkpoint for part in source.components if part.checkpoint is not None}
    chosen, adapter = parts[component], parts.get(NAME)
    if component == NAME or adapter is None or not any(map(is_motion, trained)):
        return {component: chosen}
    is_same = set(filter(is_motion, chosen.tensors)) == set(adapter.tensors)
    return {component: chosen, NAME: adapter} if is_same else {component: chosen}


def save_values(checkpoint: Checkpoint, values: Mapping[str, torch.Tensor], path: Path) -> None:
    """Values by name, in the dtypes that the checkpoint has them in."""
    stored = {
        name: value.detach().to("cpu", FROM_STORED[checkpoint.tensors[name].dtype]).contiguous()
        for name, value in values.items()
    }
    save_file(stored, path)


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
