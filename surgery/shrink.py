"""Going back: the last step of a growth undone, by its record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .anatomy_files import anatomies
from .clip_default import restored
from .content import Copy, stored_in
from .errors import PlanError, SourceError
from .extension import OPERATION
from .fingerprint import fingerprint_of_planned
from .grown import stock_name
from .job import Job
from .plan import Plan
from .record import Record
from .stacks import check_stacks
from .tensor import is_here
from .trace import listed
from .undo import take_back

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .checkpoint import Checkpoint
    from .source import Source
    from .step import Step


def plan_shrink(checkpoint: Checkpoint) -> Plan:
    """Plan the way back over the last step: its input's tensors byte for byte, as far as training left them alone.

    Raises:
        PlanError: There is no growth.json, or the last step can't be taken back.
        CheckpointError: growth.json is not of these weights.
    """
    record = checkpoint.record
    if record is None or not record.steps:
        raise PlanError(
            f"{checkpoint.path}: no growth.json, so nothing says what has grown. It is written beside config.json by "
            "every growth; name the folder that holds it"
        )
    steps = last_steps(record)
    tensors = take_back(checkpoint, steps)
    carried = {tensor.content.source for tensor in tensors if isinstance(tensor.content, Copy)}
    notes = [f"takes back {step.summary}" for step in reversed(steps)]
    edits, dropped = _config_before(steps)
    if not is_here(stored for tensor in tensors for stored in stored_in(tensor.content, checkpoint.tensors)):
        notes.append("whether weights that the step only carried over have changed since is seen once they are here")
    elif fingerprint_of_planned(tensors, checkpoint.tensors) != steps[0].input_fingerprint:
        notes.append(
            "weights that the step only carried over have changed since (training?); they stay as they are now"
        )
    return Plan(
        operation="shrink",
        options={"steps": len(steps)},
        class_name=str(checkpoint.class_name),
        tensors=tensors,
        config_edits=edits,
        config_dropped=dropped,
        pipeline_edits=_pipeline_before(steps),
        dropped=tuple(name for name in checkpoint.tensors if name not in carried),
        notes=tuple(notes),
    )


def last_steps(record: Record) -> tuple[Step, ...]:
    """The last growth, and the training of what it made new, which goes with it."""
    first = len(record.steps) - 1
    while first > 0 and not record.steps[first].new and _only_trains(record, first):
        first -= 1
    return record.steps[first:]


def _only_trains(record: Record, number: int) -> bool:
    step = record.steps[number]
    kept = not step.index_map and not step.rebuilt and step.operation != OPERATION
    return kept and set(step.changed) <= set(listed(record.steps[: number + 1], "new"))


def _config_before(steps: Sequence[Step]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config keys that the input of `steps` had otherwise, and those that it did not have."""
    edits: dict[str, Any] = {}
    added: dict[str, None] = {}
    for step in reversed(steps):
        for key, value in step.config_before.items():
            edits[key] = value
            added.pop(key, None)
        for key in step.config_added:
            edits.pop(key, None)
            added[key] = None
    return edits, tuple(added)


def _pipeline_before(steps: Sequence[Step]) -> dict[str, Any]:
    """The keys of model_index.json that the input of `steps` had otherwise."""
    return {key: value for step in reversed(steps) for key, value in step.pipeline_before.items()}


def prepare_shrink(source: Source, *, components: Sequence[str] = ()) -> Job:
    """Plan for every component that has grown, or for those named; nothing is written.

    Raises:
        SourceError: Nothing there has grown, or there is no such component.
        PlanError, CheckpointError: See `plan_shrink`.
    """
    checkpoints = choose_grown(source, components)
    plans: dict[str, Plan] = {}
    records: dict[str, Record | None] = {}
    texts: dict[str, str] = {}
    for name, checkpoint in checkpoints.items():
        plans[name] = plan_shrink(checkpoint)
        plans[name].validate(checkpoint)
        records[name] = _earlier(checkpoint.record)
        if checkpoint.record is not None:
            texts |= restored(source, last_steps(checkpoint.record))
    return Job(source=source, checkpoints=checkpoints, plans=plans, records=records, texts=texts)


def choose_grown(source: Source, names: Sequence[str]) -> Mapping[str, Checkpoint]:
    """The components with a growth.json, or those named. Raises `SourceError`, and `CheckpointError` for damage."""
    chosen = (component for name, component in source.named(names).items() if name in names or not names)
    found = {c.name: c.checkpoint for c in chosen if c.checkpoint is not None and c.checkpoint.record is not None}
    missing = [name for name in names if name not in found]
    if missing or not found:
        what = f"{missing[0]} has" if missing else "it has"
        raise SourceError(
            f"{source.name}: {what} no growth.json, so nothing says that it has grown. Every growth writes one beside "
            "config.json; name the folder that holds it"
        )
    _check_known(found.values())
    return found


def _check_known(checkpoints: Iterable[Checkpoint]) -> None:
    """What a grown model of a known architecture must be. Raises `CheckpointError`."""
    known = anatomies()
    for checkpoint in checkpoints:
        anatomy = known.get(stock_name(str(checkpoint.class_name)))
        if anatomy is not None:
            check_stacks(checkpoint, anatomy)


def _earlier(record: Record | None) -> Record | None:
    if record is None or len(record.steps) == len(last_steps(record)):
        return None
    return Record(base=record.base, steps=record.steps[: -len(last_steps(record))])
