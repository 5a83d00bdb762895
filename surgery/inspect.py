"""What a checkpoint is, what can grow in it, and what has grown."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .anatomy import anatomies, group_blocks, measure
from .errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .anatomy import Anatomy, Frames
    from .checkpoint import Checkpoint
    from .source import Component, Source


@dataclass(frozen=True, kw_only=True)
class StackReport:
    """A stack and its depth. `count_key` is None where the architecture is not declared."""

    name: str
    depth: int
    count_key: str | None
    parameters_per_block: int


@dataclass(frozen=True, kw_only=True)
class ComponentReport:
    """One component of a source."""

    name: str
    class_name: str
    parameters: int | None
    num_bytes: int | None
    dtypes: Mapping[str, int]
    stacks: tuple[StackReport, ...]
    family: str | None
    text: str | None
    frames: str | None
    growable: bool
    advice: str
    """What can be done with it, or what would be needed."""
    history: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SourceReport:
    """Everything `grow inspect` shows."""

    name: str
    pipeline: str | None
    components: tuple[ComponentReport, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def inspect(source: Source) -> SourceReport:
    """Look at every component that has weights. Raises `CheckpointError` where tensors and config disagree."""
    pipeline = source.pipeline
    return SourceReport(
        name=source.name,
        pipeline=str(pipeline["_class_name"]) if pipeline and "_class_name" in pipeline else None,
        components=tuple(_inspect(component) for component in source.components),
    )


def _inspect(component: Component) -> ComponentReport:
    checkpoint = component.checkpoint
    anatomy = anatomies().get(component.class_name)
    if checkpoint is None:
        stacks: tuple[StackReport, ...] = ()
        advice = "pickled weights, which are never opened here; save it as safetensors to look inside"
    elif anatomy is None:
        stacks = _guess_stacks(checkpoint)
        advice = (
            f"no anatomy for {component.class_name}: to grow it, one TOML file must name its stacks, the config keys "
            "that count them, and each block's last projections (see CONTRIBUTING.md)"
        )
    else:
        stacks = _declared_stacks(checkpoint, anatomy)
        advice = "grow expand --mode insert|prefix|suffix"
    return ComponentReport(
        name=component.name,
        class_name=component.class_name,
        parameters=checkpoint.num_parameters if checkpoint else None,
        num_bytes=checkpoint.num_bytes if checkpoint else None,
        dtypes=checkpoint.dtypes if checkpoint else {},
        stacks=stacks,
        family=anatomy.family if anatomy else None,
        text=anatomy.text if anatomy else None,
        frames=_frames(anatomy.frames, checkpoint.config) if anatomy and checkpoint else None,
        growable=anatomy is not None and checkpoint is not None,
        advice=advice,
        history=_history(checkpoint),
    )


def _declared_stacks(checkpoint: Checkpoint, anatomy: Anatomy) -> tuple[StackReport, ...]:
    reports = []
    for stack in anatomy.stacks:
        found = measure(checkpoint, stack)
        first = sum(checkpoint.tensors[name].num_elements for name in found.blocks[0].values())
        reports.append(
            StackReport(name=stack.name, depth=found.depth, count_key=stack.count_key, parameters_per_block=first)
        )
    return tuple(reports)


def _guess_stacks(checkpoint: Checkpoint) -> tuple[StackReport, ...]:
    """The outermost numbered groups of an architecture that is not declared: listed, never grown."""
    outermost = re.compile(r"([^0-9]*?)\.([0-9]+)\..+", re.DOTALL)
    names = dict.fromkeys(match[1] for name in checkpoint.tensors if (match := outermost.fullmatch(name)))
    groups = {name: group_blocks(checkpoint.tensors, name) for name in names}
    if len(groups) == 1:
        _check_count(checkpoint, *next(iter(groups.items())))
    return tuple(
        StackReport(
            name=name,
            depth=len(blocks),
            count_key=None,
            parameters_per_block=sum(checkpoint.tensors[n].num_elements for n in blocks[min(blocks)].values()),
        )
        for name, blocks in groups.items()
        if len(blocks) > 1
    )


def _check_count(checkpoint: Checkpoint, name: str, blocks: Mapping[int, Any]) -> None:
    """Where there is one stack and the config counts layers, they must agree even in an unknown architecture."""
    count = checkpoint.config.get("num_layers")
    if count is None:
        return
    if type(count) is not int or sorted(blocks) != list(range(count)):
        raise CheckpointError(
            f"{checkpoint.path}: config.json says num_layers = {count!r}, the tensors of {name!r} are numbered "
            f"{', '.join(map(str, sorted(blocks)))}; one of them is not this model's"
        )


def _frames(frames: Frames, config: Mapping[str, Any]) -> str:
    parts = []
    if frames.limit_key and frames.limit_key in config:
        parts.append(f"at most {config[frames.limit_key]} {frames.unit} ({frames.limit_key})")
    if frames.trained_key and frames.trained_key in config:
        parts.append(f"trained at {config[frames.trained_key]} {frames.unit} ({frames.trained_key})")
    return "; ".join([*parts, frames.note])


def _history(checkpoint: Checkpoint | None) -> tuple[str, ...]:
    if checkpoint is None or checkpoint.record is None:
        return ()
    record = checkpoint.record
    steps = [f"{step.operation} " + " ".join(f"{k}={v}" for k, v in step.options.items()) for step in record.steps]
    return (f"base {record.base.name} ({record.base.class_name})", *steps)
