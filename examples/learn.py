"""The demo's second half: what the grown foundation learns in a minute, and what a program reads in its clips.

Base and trained model draw the same prompts from the same noise, so each prompt is compared with itself:
the error of a difference is that of the mean over prompts.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelgrow.pipelines.quiet import quiet_libraries
from modelgrow.train.run import train
from modelgrow.train.settings import Settings, read_settings

from .read_model import ASPECTS, Reading, read_model
from .shapes.counted import CountedText

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from modelgrow.train.result import Result

OBJECTS = (2, 3, 1)
"""In the prompts: what is trained, then what the base can do."""
STEPS, PROMPTS, CLIPS = 300, 128, 1024
"""Of training and of measuring; a longer training gets more clips, two for each step."""
LEARN: dict[str, Any] = {
    "num_frames": 17,
    "height": 64,
    "width": 64,
    "batch_size": 16,
    "learning_rate": 1.5e-3,
    "schedule": "linear",
    "warmup_steps": 20,
    "long_captions": 0.0,
    "tracker": "none",
    "save_every": 1000,
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """A share of what prompts ask for, read right in clips of the base and of the trained model, 0 to 1."""

    objects: int
    aspect: str
    base: float
    trained: float
    error: float
    """Standard error of the difference."""

    @property
    def rose(self) -> bool:
        return self.trained - self.base > 2 * self.error

    @property
    def fell(self) -> bool:
        return self.base - self.trained > 2 * self.error


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What came of the training."""

    run: Result
    settings: Settings
    prompts: int
    """Of each number of objects."""
    changes: tuple[Change, ...]
    pairs: tuple[tuple[str, np.ndarray, np.ndarray], ...]
    """Prompt, the base's clip, the trained model's."""

    @property
    def sentence(self) -> str:
        new = [change for change in self.changes if change.objects != 1]
        rose, fell = (sum(getattr(change, name) for change in new) for name in ("rose", "fell"))
        old = sum(change.fell for change in self.changes if change.objects == 1)
        kept = "none fell" if not old else f"{old} fell"
        return (
            f"Two and three objects: {rose} of {len(new)} scores rose by more than twice their error, {fell} fell. "
            f"One object: {kept}."
        )


def learn(
    grown: Path,
    base: Path,
    output: Path,
    *,
    steps: int,
    prompts: int,
    seed: int,
    workers: int | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Learned:
    """Train what is new in `grown`, and read clips of `base` and of the result.

    Args:
        grown, base: Pipeline folders.
        output: Folder of the run.
        steps: Of 16 clips.
        prompts: How many with one object, with two, with three; 2 at least.
        seed: Of the training.
        workers: Processes that make clips while this one trains; as many as there are processors, 3 at most, if
            None; 0 is none: all here, one after the other.
        report: Told what is going on.

    Raises:
        GrowError: See `train`.
    """
    chosen = {"model": str(grown), "output": str(output), "seed": seed, "steps": steps}
    settings = read_settings(None, {**LEARN, **chosen, "data": f"shapes:2-3:{max(CLIPS, 2 * steps)}"})
    with _processes(min(3, os.cpu_count() or 1) if workers is None else workers) as pool:
        before = [pool.submit(read_model, base, objects, prompts) for objects in OBJECTS]
        report("drawing clips to learn from")
        run = train(
            settings,
            tell=report,
            report=lambda now: report(f"training: step {now.step} of {now.steps}, loss {now.loss:.3f}"),
            wrap=CountedText,
        )
        after = [pool.submit(read_model, run.model, objects, prompts) for objects in OBJECTS]
        readings = []
        for objects, old, new in zip(OBJECTS, before, after, strict=True):
            report(f"reading clips of {prompts} prompts with {objects} object{'s' if objects > 1 else ''}")
            readings.append((objects, old.result(), new.result()))
    shutil.rmtree(output / "cache")  # drawn clips, that can be drawn again
    return Learned(
        run=run,
        settings=settings,
        prompts=prompts,
        changes=tuple(change for reading in readings for change in changes(*reading)),
        pairs=tuple(
            (prompt, old, new)
            for _, first, second in readings
            for (prompt, old), (_, new) in zip(first.clips, second.clips, strict=True)
        ),
    )


def changes(objects: int, base: Reading, trained: Reading) -> Iterator[Change]:
    """Aspect by aspect."""
    difference = trained.values - base.values
    errors = difference.std(axis=0, ddof=1) / np.sqrt(len(difference))
    rows = zip(ASPECTS, base.values.mean(axis=0), trained.values.mean(axis=0), errors, strict=True)
    for aspect, old, new, error in rows:
        yield Change(objects=objects, aspect=aspect, base=float(old), trained=float(new), error=float(error))


class _Here:
    """A pool without processes."""

    def submit(self, function: Callable[..., Reading], *args: Any) -> Future[Reading]:
        from concurrent.futures import Future

        done: Future[Reading] = Future()
        done.set_result(function(*args))
        return done

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _processes(workers: int) -> ProcessPoolExecutor | _Here:
    if workers == 0:
        return _Here()
    # Not forked: torch's threads do not survive that.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=quiet_libraries)
