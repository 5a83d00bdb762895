"""From a source to a grown folder: plan every chosen component, validate, then write all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import strict_json
from .anatomy import Anatomy
from .anatomy_files import anatomies
from .apply import ComponentFolder, carries, make_files, sources_of
from .carried import carried_files, carrier
from .checkpoint import Checkpoint
from .checksums import write_checksums
from .content import stored_in
from .disk import check_room, write_text
from .errors import SourceError
from .extension import extension_of
from .grown import stock_name
from .index import edit_index, follow_slots, index_before, index_edits
from .layout import OutputFile, lay_out
from .packed_bits import refuse_packed
from .record import extend
from .room import room_for
from .slot import slot_of
from .source import PIPELINE_NAME, Source, choose
from .span import Progress
from .stacks import check_stacks
from .staging import staged
from .watch import unchanged
from .write import Writer, carry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .plan import Plan
    from .record import Record
    from .tensor import Tensor

Operation = Callable[[Checkpoint, Anatomy], "Plan"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Plans for the components of one source. The component "" is a source that is no pipeline."""

    source: Source
    checkpoints: Mapping[str, Checkpoint]
    plans: Mapping[str, Plan]
    records: Mapping[str, Record | None] = field(default_factory=dict)
    """What to write to growth.json where that is not one step more; None writes none."""
    added: tuple[tuple[Path, Path], ...] = ()
    """Files from outside of the source that come along, and their places in the output."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Files at the top of the output that are written anew: name -> text; one without text is not there."""

    @cached_property
    def index_edits(self) -> Mapping[str, Any]:
        """Keys of model_index.json that change -> their new values."""
        configs = {c.name: c.checkpoint.config for c in self.source.components if c.checkpoint is not None}
        configs |= {name: plan.new_config(self.checkpoints[name].config) for name, plan in self.plans.items()}
        edits = index_edits(self.source.pipeline, self.plans)
        return follow_slots(self.source.pipeline, edits, slotted=any(map(slot_of, configs.values())))

    @property
    def num_bytes(self) -> int:
        """What the output will take, in bytes."""
        carried = sum(path.stat().st_size for path, _ in carried_files(self))
        is_carried = carrier(self)
        carried += sum(size for name, size in self.source.elsewhere.items() if is_carried(Path(name)))
        return sum(plan.num_bytes for plan in self.plans.values()) + carried

    @cached_property
    def missing(self) -> Mapping[str, int]:
        """Files that `execute` reads and that are still on the Hub: their places in the source -> bytes."""
        is_carried = carrier(self)
        read = self.source.holding(self._read())
        return {name: size for name, size in self.source.elsewhere.items() if name in read or is_carried(Path(name))}

    def _read(self) -> Iterator[Tensor]:
        """The tensors that `execute` reads: those that are copied, and all for the fingerprint of a new step."""
        for name, plan in self.plans.items():
            tensors = self.checkpoints[name].tensors
            if name not in self.records:
                yield from tensors.values()
            for tensor in plan.tensors:
                yield from stored_in(tensor.content, tensors)

    @property
    def work_bytes(self) -> int:
        """What `execute` tells its `progress` in all: every byte counts twice, written and compared."""
        carried = sum(carry(path, path).num_bytes for path, _ in carried_files(self))
        return 2 * (carried + sum(file.num_bytes for layout in self.layouts.values() for file in layout))

    @cached_property
    def layouts(self) -> Mapping[str, tuple[OutputFile, ...]]:
        """Per component: the files of weights that will be written."""
        return {name: lay_out(plan, self.checkpoints[name]) for name, plan in self.plans.items()}

    def folder(self, name: str, output: Path) -> ComponentFolder:
        """A component's folder in the output."""
        return ComponentFolder(
            path=output / name, plan=self.plans[name], checkpoint=self.checkpoints[name], layout=self.layouts[name]
        )

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
        GrowError: Nothing can grow, config and tensors do not agree, or a plan does not hold.
    """
    known = anatomies() if known is None else known
    checkpoints = choose(source, components, known)
    plans = {}
    for name, checkpoint in checkpoints.items():
        anatomy = known[stock_name(str(checkpoint.class_name))]
        refuse_packed(checkpoint)
        check_stacks(checkpoint, anatomy)
        extension_of(checkpoint.config)
        plans[name] = operation(checkpoint, anatomy)
        plans[name].validate(checkpoint)
    index_edits(source.pipeline, plans)
    return Job(source=source, checkpoints=checkpoints, plans=plans)


def execute(
    job: Job,
    output: Path | str,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    workers: int | None = None,
    link: bool = False,
    checksum: bool = False,
) -> Path:
    """Write the output folder, complete or not at all.

    Args:
        job: From `prepare`.
        output: The folder to make.
        overwrite: Replace it if it exists.
        progress: Told the bytes written and compared, `job.work_bytes` in all.
        workers: Threads that move bytes; one per processor, and 4 at most, if None.
        link: Make hard links of large files that do not change, instead of copies, where the disk lets us. An edit
            in place of such a file reaches the input.
        checksum: Write `checksums.sha256`, which sha256sum(1) checks, with every file of the output.

    Raises:
        SourceError: Some of it is still on the Hub.
        GrowError: See `ComponentFolder.write` and `staged`.
    """
    output = Path(output)
    check_downloaded(job.source.name, job.missing)
    writer = Writer(workers=workers, link=link, digests=checksum, progress=progress)
    with staged(output, inputs=[job.source.path], overwrite=overwrite) as work:
        carried = carries(carried_files(job), work)
        folders = {name: job.folder(name, work) for name in job.plans}
        works = [*carried, *(file for folder in folders.values() for file in folder.works)]
        check_room(output, room_for(works, work, link=link))
        with unchanged(sources_of(works)):
            make_files(carried, writer)
            for name, folder in folders.items():
                folder.write(_record_of(job, name), writer)
        _write_texts(job, work)
        if checksum:
            write_checksums(work, writer.digests)
    return output


def check_downloaded(name: str, missing: Iterable[str]) -> None:
    """Refuse to carry out what was planned from headers. Raises `SourceError`."""
    for place in missing:
        raise SourceError(f"{name}: {place} is still on the Hub. Open it without headers_only, or with that in fetch")


def _write_texts(job: Job, work: Path) -> None:
    if job.source.pipeline is not None and job.index_edits:
        write_text(work / PIPELINE_NAME, strict_json.dump(edit_index(job.source.pipeline, job.index_edits)))
    for name, text in job.texts.items():
        if text:
            write_text(work / name, text)


def _record_of(job: Job, name: str) -> Record | None:
    if name in job.records:
        return job.records[name]
    return extend(
        job.checkpoints[name],
        job.plans[name],
        name=job.source.name,
        made_with=made_with(),
        pipeline_before=index_before(job.source.pipeline, index_edits(job.source.pipeline, {name: job.plans[name]})),
    )


def made_with() -> str:
    """This program and its version, for records."""
    return f"modelgrow {_version()}"


def default_output(job: Job) -> Path:
    """A folder here, whose name says what was done: Wan2.1-T2V-1.3B-Diffusers-suffix7."""
    plan = next(iter(job.plans.values()))
    named = {"expand": "{mode}{blocks}", "extend-frames": "{to}f"}
    what = named.get(plan.operation, plan.operation).format(**plan.options)
    return Path(f"{Path(job.source.name).name}-{what}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # a tenth of the start-up, needed at the end

    try:
        return version("modelgrow")
    except PackageNotFoundError:
        return "(not installed)"
