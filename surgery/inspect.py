"""What a checkpoint is, what can grow in it, and what has grown."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .anatomy_files import anatomies
from .errors import CheckpointError
from .extension import extension_of
from .grown import stock_name
from .slot import slot_blocks, slot_of
from .stacks import find_stacks, odd_number, ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .anatomy import Anatomy
    from .checkpoint import Checkpoint
    from .source import Component, Source

_OUTERMOST = re.compile(r"([^0-9]*?)\.(0|[1-9][0-9]{0,8})\.(.+)", re.DOTALL)
_ODD = re.compile(r"([^0-9]*?)\.([^.]*\d[^.]*)\.", re.DOTALL)
"""What may be a block's number, written otherwise."""


@dataclass(frozen=True, kw_only=True)
class StackReport:
    """A stack and its depth. `count_keys` is empty where the architecture is not declared."""

    name: str
    depth: int
    places: int
    """In how many places the stack stands; 1 but for UNets."""
    count_keys: tuple[str, ...]
    parameters_per_block: int
    """Of its first block."""


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
    slot: str | None
    """The language model that it reads, and where."""
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


def inspect(source: Source, *, known: Mapping[str, Anatomy] | None = None) -> SourceReport:
    """Look at every component that has weights.

    Args:
        source: What to look at.
        known: The architectures by class name; those that come along if None.

    Raises:
        CheckpointError: Tensors and config disagree.
    """
    found = anatomies() if known is None else known
    pipeline = source.pipeline
    return SourceReport(
        name=source.name,
        pipeline=str(pipeline["_class_name"]) if pipeline and "_class_name" in pipeline else None,
        components=tuple(_inspect(part, found.get(stock_name(part.class_name))) for part in source.components),
    )


def _inspect(component: Component, anatomy: Anatomy | None) -> ComponentReport:
    checkpoint = component.checkpoint
    if checkpoint is None:
        stacks: tuple[StackReport, ...] = ()
        advice = "pickled weights, which are never opened here; save it as safetensors to look inside"
    elif anatomy is None:
        stacks = _guess_stacks(checkpoint)
        advice = (
            f"no anatomy for {component.class_name}: to grow it, one TOML file must name its stacks, the config keys "
            "that count them, and each block's last projections (docs/anatomy.md), and come along as --anatomy FILE"
        )
    else:
        stacks = _declared_stacks(checkpoint, anatomy)
        advice = "grow expand --mode insert|prefix|suffix"
        if any(stack.slot for stack in anatomy.stacks) and slot_of(checkpoint.config) is None:
            advice += ", grow attach-llm"
        if anatomy.frames.kind not in ("", "none"):
            advice += ", grow extend-frames"
    return ComponentReport(
        name=component.name,
        class_name=component.class_name,
        parameters=checkpoint.num_parameters if checkpoint else None,
        num_bytes=checkpoint.num_bytes if checkpoint else None,
        dtypes=checkpoint.dtypes if checkpoint else {},
        stacks=stacks,
        family=anatomy.family if anatomy else None,
        text=anatomy.text if anatomy else None,
        frames=_frames(anatomy, checkpoint.config) if anatomy and checkpoint else None,
        slot=_slot(checkpoint),
        growable=anatomy is not None and checkpoint is not None,
        advice=advice,
        history=_history(checkpoint),
    )


def _declared_stacks(checkpoint: Checkpoint, anatomy: Anatomy) -> tuple[StackReport, ...]:
    reports = []
    for stack in anatomy.stacks:
        if stack.kind != "blocks":
            continue
        found = find_stacks(checkpoint, anatomy, stack)
        if not found:
            continue
        reports.append(
            StackReport(
                name=stack.name,
                depth=max(place.depth for place in found),
                places=len(found),
                count_keys=stack.count_keys,
                parameters_per_block=_parameters(checkpoint, found[0].blocks[0]),
            )
        )
    return tuple(reports)


def _parameters(checkpoint: Checkpoint, block: Mapping[str, str]) -> int:
    return sum(checkpoint.tensors[name].num_elements for name in block.values())


def _guess_stacks(checkpoint: Checkpoint) -> tuple[StackReport, ...]:
    """The outermost numbered groups of an architecture that is not declared: listed, never grown."""
    groups: dict[str, dict[int, dict[str, str]]] = {}
    for name in checkpoint.tensors:
        if match := _OUTERMOST.fullmatch(name):
            groups.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = name
    for name in checkpoint.tensors:
        match = _ODD.match(name)
        number = odd_number(match[2]) if match else None
        if match and number in groups.get(match[1], ()):
            raise CheckpointError(f"{checkpoint.path}: {name!r:.200} is of a block that is there as {number} too")
    if len(groups) == 1:
        _check_count(checkpoint, *next(iter(groups.items())))
    return tuple(
        StackReport(
            name=name,
            depth=len(blocks),
            places=1,
            count_keys=(),
            parameters_per_block=_parameters(checkpoint, blocks[min(blocks)]),
        )
        for name, blocks in groups.items()
        if len(blocks) > 1
    )


def _check_count(checkpoint: Checkpoint, name: str, blocks: Mapping[int, Any]) -> None:
    """Where there is one stack and the config counts layers, they must agree even in an unknown architecture."""
    count = checkpoint.config.get("num_layers")
    if count is None:
        return
    if type(count) is not int or len(blocks) != count or sorted(blocks) != list(range(len(blocks))):
        raise CheckpointError(
            f"{checkpoint.path}: config.json says num_layers = {count!r:.80}, the tensors of {name!r:.200} are "
            f"numbered {ranges(sorted(blocks)):.200}; one of them is not this model's"
        )


def _frames(anatomy: Anatomy, config: Mapping[str, Any]) -> str:
    frames, extension, parts = anatomy.frames_of(config), extension_of(config), []
    if frames.limit_key and frames.limit_key in config:
        limit = config[frames.limit_key]
        first = limit[0] if isinstance(limit, list) and limit else limit
        parts.append(f"at most {first} {frames.unit} ({frames.limit_key})")
    if extension is not None:
        told = f"extended to {extension.get('clip_frames')} frames ({extension.get('method')})"
        parts.append(f"{told} from {frames.pixels(extension['base_frames'])}")
    elif frames.trained_frames is not None:
        parts.append(f"its family was trained on {frames.trained_frames} frames")
    elif frames.trained_key and frames.trained_key in config:
        parts.append(f"trained at {config[frames.trained_key]} {frames.unit} ({frames.trained_key})")
    return "; ".join([*parts, frames.note])


def _slot(checkpoint: Checkpoint | None) -> str | None:
    slot = slot_of(checkpoint.config) if checkpoint is not None else None
    if slot is None or checkpoint is None:
        return None
    blocks = slot_blocks(checkpoint.tensors)
    where = "; ".join(f"{stack} {ranges(numbers)}" for stack, numbers in blocks.items())
    at = f" at {str(slot['revision'])[:12]}" if slot.get("revision") else ""
    count, heads = sum(map(len, blocks.values())), f"{slot.get('heads')} heads of {slot.get('head_dim')}"
    return f"behind {count} blocks ({where}), {heads}; reads {slot.get('model')}{at} ({slot.get('llm_dim')} wide)"


def _history(checkpoint: Checkpoint | None) -> tuple[str, ...]:
    if checkpoint is None or checkpoint.record is None:
        return ()
    record = checkpoint.record
    return (f"base {record.base.name} ({record.base.class_name})", *(step.summary for step in record.steps))
