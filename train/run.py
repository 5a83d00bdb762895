"""A whole run, from settings to a grown folder and a growth by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from modelgrow.surgery import TrainError
from modelgrow.surgery.disk import write_text

from .about import about_data, about_run
from .finish import finish
from .keep import keep_settings
from .loop import Loop
from .memory import predict_memory
from .preview import Previews
from .preview_image import check_image
from .result import Result, result_of
from .setup import set_up
from .trunk import Trunk, trunk_depth
from .zero import is_zero

if TYPE_CHECKING:
    from .families.family import Family
    from .memory import Memory
    from .progress import Progress
    from .settings import Settings
    from .setup import Run


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
    check_image(settings)
    keep_settings(settings, Path(settings.output))
    run = set_up(settings, tell, wrap)
    say = announce if run.accelerator.is_main_process else lambda _: None
    tell_data(run, say)
    run.accelerator.init_trackers("modelgrow")
    previews = make_previews(run)
    memory = predict(run)
    loop = Loop(run=run, report=report, preview=previews.make if previews else None)
    if settings.cache_trunk:
        loop.trunk = make_trunk(loop, tell)
    for line in about_run(loop, memory):
        say(line)
    before = loop.seconds
    loop.train()
    model, growth = finish(run, loop, tell)
    run.accelerator.end_training()
    return result_of(loop, memory, model=model, growth=growth, seconds=loop.seconds - before)


def tell_data(run: Run, say: Callable[[str], None]) -> None:
    """What is trained on, in lines and in full in `data.json`."""
    for line in about_data(run.data):
        say(line)
    if run.accelerator.is_main_process:
        write_text(run.folder / "data.json", json.dumps(run.data.to_json(), indent=2) + "\n")


def make_previews(run: Run) -> Previews | None:
    """Where the settings ask for them, on the main process; on all of them where they hold the model together."""
    if run.settings.preview_every and (run.is_split or run.accelerator.is_main_process):
        return Previews(run)
    return None


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
