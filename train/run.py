"""A whole run, from settings to a grown folder and a growth by itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery import TrainError

from . import alarm
from .finish import Trained, write_model
from .loop import Loop, Progress
from .memory import predict_memory
from .preview import Previews
from .setup import set_up
from .trunk import Trunk, trunk_depth

if TYPE_CHECKING:
    from .memory import Memory
    from .settings import Settings
    from .setup import Run

SETTINGS_NAME = "settings.toml"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a run."""

    model: Path
    """The grown pipeline with what was learned, ready for diffusers."""
    steps: int
    first_loss: float
    last_loss: float
    """Means over the first and the last 20 steps of this session."""
    trained_parameters: int
    changed: alarm.Changed | None
    seconds: float
    predicted_memory: int
    """Bytes on the device, before the first step."""
    peak_memory: int | None
    """What it came to; None without a GPU."""

    def to_json(self) -> dict[str, Any]:
        return {
            "model": str(self.model),
            "steps": self.steps,
            "first_loss": self.first_loss,
            "last_loss": self.last_loss,
            "trained_parameters": self.trained_parameters,
            "changed": self.changed.sentence if self.changed else None,
            "seconds": self.seconds,
            "predicted_memory": self.predicted_memory,
            "peak_memory": self.peak_memory,
        }


def train(
    settings: Settings,
    *,
    tell: Callable[[str], None] = lambda _: None,
    report: Callable[[Progress], None] = lambda _: None,
) -> Result:
    """Run, or go on with the run that stands in the output folder.

    Args:
        settings: All of them; they are saved in the folder, and a run goes on only with the same.
        tell: Hears a line about each stage.
        report: Hears about each step.

    Raises:
        GrowError: It can't be set up, or did not do what a run must do.
    """
    folder = Path(settings.output)
    keep_settings(settings, folder)
    run = set_up(settings, tell)
    if run.accelerator.is_main_process:
        (folder / "data.json").write_text(json.dumps(run.data.to_json(), indent=2) + "\n", encoding="utf-8")
    run.accelerator.init_trackers("modelgrow")
    previews = Previews(run) if settings.preview_every and run.accelerator.is_main_process else None
    last: list[Progress] = []

    def hear(progress: Progress) -> None:
        last[:] = [progress]
        report(progress)

    loop = Loop(run=run, report=hear, preview=previews.make if previews else None)
    if settings.cache_trunk:
        loop.trunk = make_trunk(loop, tell)
    memory = predict(loop)
    tell(f"{sum(p.numel() for _, p in run.trained):,} parameters train; {memory.sentence}")
    loop.train()
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    model = finish(run, loop, tell)
    run.accelerator.end_training()
    edge = min(20, len(loop.losses)) or 1
    return Result(
        model=model,
        steps=loop.step,
        first_loss=sum(loop.losses[:edge]) / edge,
        last_loss=sum(loop.losses[-edge:]) / edge,
        trained_parameters=sum(parameter.numel() for _, parameter in run.trained),
        changed=loop.changed,
        seconds=last[0].seconds if last else 0.0,
        predicted_memory=memory.total,
        peak_memory=peak,
    )


def predict(loop: Loop) -> Memory:
    """The peak of a step on this process's device."""
    run, settings = loop.run, loop.run.settings
    batch = loop.batch(0)
    inputs = {
        "noisy": batch.latents.to(loop.dtype),
        "timesteps": run.objective.timesteps(batch.levels),
        "text": {
            name: value.to(loop.dtype) if value.is_floating_point() else value for name, value in batch.text.items()
        },
    }
    return predict_memory(
        run.model,
        lambda model, given: run.family.predict(run.pipeline, model, **given),
        inputs,
        optimizer=settings.optimizer,
        average=bool(settings.ema_decay),
        autocast=run.accelerator.autocast,
    )


def keep_settings(settings: Settings, folder: Path) -> None:
    """Save the settings, or see that a run that is there had the same. Raises `TrainError`."""
    path = folder / SETTINGS_NAME
    text = settings.to_toml()
    if path.exists():
        before = path.read_text(encoding="utf-8")
        if before != text:
            differ = sorted(set(before.splitlines()) ^ set(text.splitlines()))
            raise TrainError(
                f"{path}: the run there has other settings ({'; '.join(differ)[:300]}). "
                "Go on with its own, or choose another -o"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{SETTINGS_NAME}.{os.getpid()}"  # several processes may come by at once
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def make_trunk(loop: Loop, tell: Callable[[str], None]) -> Trunk:
    """Compute the trunk's outputs that are not there yet."""
    run = loop.run
    stack, depth = trunk_depth(run.record, loop.names)
    trunk = Trunk(
        stack=stack,
        depth=depth,
        folder=run.folder / "trunk",
        cache=run.cache,
        objective=run.objective,
        settings=run.settings,
    )
    trunk.fill(run.model, loop.predict, lambda done, total: tell(f"trunk outputs: {done} of {total} clips"))
    return trunk


def finish(run: Run, loop: Loop, tell: Callable[[str], None]) -> Path:
    """Write the model: averaged values where the run averaged them."""
    settings = run.settings
    output = run.folder / "model"
    if run.accelerator.is_main_process:
        tell("writing the model")
        averaged = loop.ema.shadow_params if loop.ema else [parameter for _, parameter in run.trained]
        values: dict[str, torch.Tensor] = dict(zip(loop.names, averaged, strict=True))
        if settings.train == "lora":
            save_lora(run, output)
        else:
            told = {
                "data": settings.data,
                "train": settings.train,
                "steps": loop.step,
                "batch_size": settings.batch_size * settings.accumulate * run.accelerator.num_processes,
                "learning_rate": settings.learning_rate,
                "ema_decay": settings.ema_decay,
                "seed": settings.seed,
            }
            write_model(run.source, run.component.name, Trained(values=values, told=told), output, overwrite=True)
    run.accelerator.wait_for_everyone()
    return output


def save_lora(run: Run, output: Path) -> None:
    """The LoRA as diffusers' `load_lora_weights` takes it."""
    from peft import get_peft_model_state_dict

    layers = get_peft_model_state_dict(run.model)
    run.pipeline.save_lora_weights(output, **{f"{run.component.name}_lora_layers": layers})
