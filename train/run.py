"""A whole run, from settings to a grown folder and a growth by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import TrainError
from modelgrow.surgery.disk import write_text

from . import alarm
from .finish import finish
from .keep import keep_settings
from .loop import Loop
from .memory import predict_memory
from .preview import Previews
from .preview_image import check_image
from .progress import EDGE, Progress
from .room import room_of
from .setup import set_up
from .trunk import Trunk, trunk_depth
from .zero import is_zero

if TYPE_CHECKING:
    from .data.report import DataReport
    from .families.family import Family
    from .memory import Memory
    from .settings import Settings
    from .setup import Run

SHOWN = 5
"""Clips that were refused and are named."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a run."""

    model: Path
    """What was named, a grown pipeline or component, with what was learned; ready for diffusers."""
    growth: Path | None
    """The growth by itself, for its base; None for a LoRA, and where weights trained that the base has too."""
    steps: int
    first_loss: float | None
    last_loss: float | None
    """Means over the first and the last 20 steps of this session; None if it had none left to do."""
    validation: float | None
    """Loss on held-out clips at the end."""
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
            "growth": str(self.growth) if self.growth else None,
            "steps": self.steps,
            "first_loss": self.first_loss,
            "last_loss": self.last_loss,
            "validation": self.validation,
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
    announce: Callable[[str], None] = lambda _: None,
    wrap: Callable[[Family], Family] = lambda family: family,
) -> Result:
    """Run, or go on with the run that stands in the output folder.

    Args:
        settings: All of them; they are saved in the folder, and a run goes on only with the same.
        tell: Hears a line about each stage, as it passes.
        report: Hears about each step.
        announce: Hears, on the main process, what should stay in sight: the data, what trains, the memory.
        wrap: Puts something in the place of the model's family, for what is known of this model alone.

    Raises:
        GrowError: It can't be set up, or did not do what a run must do.
    """
    folder = Path(settings.output)
    check_image(settings)
    keep_settings(settings, folder)
    run = set_up(settings, tell, wrap)
    say = announce if run.accelerator.is_main_process else lambda _: None
    for line in about_data(run.data):
        say(line)
    if run.accelerator.is_main_process:
        write_text(folder / "data.json", json.dumps(run.data.to_json(), indent=2) + "\n")
    run.accelerator.init_trackers("modelgrow")
    seen_by_all = run.is_split or run.accelerator.is_main_process
    previews = Previews(run) if settings.preview_every and seen_by_all else None
    memory = predict(run)
    last: list[Progress] = []

    def hear(progress: Progress) -> None:
        last[:] = [progress]
        report(progress)

    loop = Loop(run=run, report=hear, preview=previews.make if previews else None)
    if settings.cache_trunk:
        loop.trunk = make_trunk(loop, tell)
    say(f"{sum(p.numel() for _, p in run.trained):,} parameters train; {memory.sentence}")
    say(room_of(run).sentence)
    if run.quantized:
        say(run.quantized.sentence)
    if loop.step:
        say(f"going on from step {loop.step} of {settings.steps}")
    loop.train()
    model, growth = finish(run, loop, tell)
    run.accelerator.end_training()
    return Result(
        model=model,
        growth=growth,
        steps=loop.step,
        first_loss=fmean(loop.losses[:EDGE]) if loop.losses else None,
        last_loss=fmean(loop.losses[-EDGE:]) if loop.losses else None,
        validation=loop.validation,
        trained_parameters=sum(parameter.numel() for _, parameter in run.trained),
        changed=loop.changed,
        seconds=last[0].seconds if last else 0.0,
        predicted_memory=memory.total,
        peak_memory=loop.peak or None,
    )


def predict(run: Run) -> Memory:
    """The peak of a step on this process's device. Asked before FSDP2 splits anything."""
    batch = run.batch(0)
    inputs = {
        "noisy": batch.latents.to(run.dtype),
        "timesteps": run.objective.timesteps(batch.levels),
        "text": {
            name: value.to(run.dtype) if value.is_floating_point() else value for name, value in batch.text.items()
        },
    }
    memory = predict_memory(
        run.model,
        lambda model, given: run.family.predict(run.pipeline, model, **given),
        inputs,
        optimizer=run.settings.optimizer,
        average=bool(run.settings.ema_decay),
        autocast=run.autocast,
        accumulate=run.settings.accumulate,
        beside=3 * batch.latents.nbytes,  # latents, noise and target
        device=run.accelerator.device,
    )
    processes = run.accelerator.num_processes
    if is_zero(run.accelerator):
        memory = memory.zero(processes)
    elif run.is_split:
        memory = memory.split(processes)
    elif processes > 1:
        memory = memory.doubled()
    return replace(memory, weights=memory.weights + run.parts.called_bytes)


def about_data(data: DataReport) -> list[str]:
    """What is trained on, in lines; what is not, and why."""
    sizes = ", ".join(f"{b.clips} of {b.num_frames} x {b.height} x {b.width}" for b in data.buckets)
    clips = f"{data.clips} clip{'s' * (data.clips > 1)}"
    lines = [f"{data.name}: {clips} ({sizes}), {data.frames_used:.0%} of their frames are trained on"]
    lines += [control.sentence for control in data.controls]
    lines += [f"left out: {refused.name}: {refused.reason}" for refused in data.refused[:SHOWN]]
    if len(data.refused) > SHOWN:
        lines.append(f"and {len(data.refused) - SHOWN} more, all in data.json")
    return lines


def make_trunk(loop: Loop, tell: Callable[[str], None]) -> Trunk:
    """Compute the trunk's outputs that are not there yet, every process its share."""
    run = loop.run
    if run.is_split:
        raise TrainError("cache_trunk with FSDP: the trunk does not run, so nothing is gained by splitting it; use DDP")
    stack, depth = trunk_depth(run.record, loop.names)
    trunk = Trunk(
        stack=stack,
        depth=depth,
        folder=run.folder / "trunk",
        cache=run.cache,
        objective=run.objective,
        settings=run.settings,
    )
    trunk.fill(
        run.model,
        loop.predict,
        lambda done, total: tell(f"trunk outputs: {done} of {total} clips"),
        process=run.accelerator.process_index,
        processes=run.accelerator.num_processes,
    )
    run.accelerator.wait_for_everyone()
    return trunk
