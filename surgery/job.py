"""From a source to a grown folder: plan every chosen component, validate, then write all of it or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .anatomy import Anatomy, anatomies
from .apply import Progress, apply, copy_file
from .checkpoint import CONFIG_NAME, Checkpoint
from .record import RECORD_NAME, extend
from .source import Source, choose
from .staging import staged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .plan import Plan

Operation = Callable[[Checkpoint, Anatomy], "Plan"]

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".gguf")


@dataclass(frozen=True, kw_only=True)
class Job:
    """Plans for the components of one source. The component "" is a source that is no pipeline."""

    source: Source
    checkpoints: Mapping[str, Checkpoint]
    plans: Mapping[str, Plan]

    @property
    def num_bytes(self) -> int:
        """What the output will take, in bytes."""
        carried = sum(path.stat().st_size for path, _ in carried_files(self))
        return sum(plan.num_bytes for plan in self.plans.values()) + carried

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source.name,
            "bytes": self.num_bytes,
            "plans": {name: plan.to_json() for name, plan in self.plans.items()},
        }


def prepare(
    source: Source,
    operation: Operation,
    *,
    components: Sequence[str] = (),
    known: Mapping[str, Anatomy] | None = None,
) -> Job:
    """Plan and validate; nothing is written.

    Args:
        source: Where it comes from.
        operation: Makes a plan for one component.
        components: Names of a pipeline's components; all that can grow if empty.
        known: The architectures by class name; those that come along if None.

    Raises:
        GrowError: Nothing can grow, or a plan does not hold.
    """
    known = anatomies() if known is None else known
    checkpoints = choose(source, components, known)
    plans = {}
    for name, checkpoint in checkpoints.items():
        plans[name] = operation(checkpoint, known[str(checkpoint.class_name)])
        plans[name].validate(checkpoint)
    return Job(source=source, checkpoints=checkpoints, plans=plans)


def execute(job: Job, output: Path, *, overwrite: bool = False, progress: Progress | None = None) -> Path:
    """Write the output folder, complete or not at all.

    Args:
        job: From `prepare`.
        output: The folder to make.
        overwrite: Replace it if it exists.
        progress: Told the bytes written and compared, 2 x the plans' bytes in all.

    Raises:
        GrowError: See `apply` and `staged`.
    """
    source = job.source
    with staged(output, inputs=[source.path], num_bytes=job.num_bytes, overwrite=overwrite) as work:
        for path, relative in carried_files(job):
            target = work / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(path, target)
        for name, plan in job.plans.items():
            folder = work / name
            folder.mkdir(exist_ok=True)
            record = extend(job.checkpoints[name], plan, name=source.name, made_with=f"modelgrow {_version()}")
            apply(plan, job.checkpoints[name], record, folder, progress)
    return output


def default_output(job: Job) -> Path:
    """A folder here, whose name says what was done: Wan2.1-T2V-1.3B-Diffusers-suffix7."""
    plan = next(iter(job.plans.values()))
    what = f"{plan.options['mode']}{plan.options['blocks']}" if plan.operation == "expand" else plan.operation
    return Path(f"{Path(job.source.name).name}-{what}")


def carried_files(job: Job) -> list[tuple[Path, Path]]:
    """Every other file of the source, and where it goes in the output."""
    source = job.source
    if source.path.is_file():
        return []
    files = []
    for folder, folders, names in os.walk(source.path, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        place = Path(folder).relative_to(source.path)
        grows = place.as_posix() in job.plans or (place == Path() and "" in job.plans)
        for name in sorted(names):
            path = Path(folder) / name
            if not name.startswith(".") and path.is_file() and not (grows and _is_replaced(name)):
                files.append((path, place / name))
    return files


def _is_replaced(name: str) -> bool:
    return name in (CONFIG_NAME, RECORD_NAME) or name.endswith(_WEIGHT_SUFFIXES) or ".index." in name


def _version() -> str:
    try:
        return version("modelgrow")
    except PackageNotFoundError:
        return "(not installed)"
