"""Longer clips: what each architecture needs so that it can make more frames than it was trained on.

What that is, its anatomy declares in `[frames]`; `docs/frames.md` explains the methods. Frames are a user's, latent
frames the model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .content import Values
from .errors import PlanError
from .extension import OPERATION, Length, class_edits, config_edits, length_of
from .extension_notes import notes
from .extension_tensors import new_tensors, tables
from .exvideo import Sinusoids, plan_exvideo, sinusoids
from .kept import TABLE_ROWS
from .plan import Plan, PlannedTensor

if TYPE_CHECKING:
    from .anatomy import Anatomy
    from .checkpoint import Checkpoint
    from .positions import Frames


@dataclass(frozen=True, kw_only=True)
class ExtendOptions:
    """What is asked for."""

    to: int
    """Frames that the user wants; the VAE may need a few more."""
    method: str | None = None
    """One of `positions.METHODS`; the architecture's own choice if None."""
    trainable: bool = False
    """Positions become parameters."""
    base_frames: int | None = None
    """Frames of the clips that the base was trained on, where the anatomy's number is not true of it."""
    vae: Mapping[str, Any] = field(default_factory=dict)
    """The VAE's config, where there is one."""
    sinusoids: Sinusoids = sinusoids
    """ExVideo only: makes the table's first values. Where it is torch's, short clips stay the same to the bit."""


def plan_extend_frames(checkpoint: Checkpoint, anatomy: Anatomy, options: ExtendOptions) -> Plan:
    """Plan longer clips.

    Raises:
        PlanError: It makes no clips, or not with that method, or nobody has declared how.
        CheckpointError: Config and tensors do not agree.
    """
    frames = anatomy.frames_of(checkpoint.config).decoded_by(options.vae)
    if frames.kind == "exvideo":
        return _exvideo(checkpoint, anatomy, options)
    length = length_of(checkpoint, anatomy, frames, options.to, options.base_frames)
    method = _method(anatomy, frames, length, options)
    if options.trainable and frames.kind in ("config", "fixed"):
        raise PlanError(f"{anatomy.class_name}: its positions are formulas and no parameters; leave --trainable out")
    edits = {
        **config_edits(checkpoint, anatomy, frames, length, method),
        **class_edits(checkpoint, anatomy, frames, length, method, trainable=options.trainable),
    }
    changed, rebuilt = tables(checkpoint, frames, length, method, trainable=options.trainable)
    carried = [changed.get(name) or PlannedTensor.copy_of(t, name) for name, t in checkpoint.tensors.items()]
    return Plan(
        operation=OPERATION,
        options={**_resolved(length, method, options), **_rows(checkpoint, changed, method)},
        class_name=str(checkpoint.class_name),
        tensors=(*carried, *new_tensors(checkpoint, anatomy, frames, length, edits)),
        config_edits=edits,
        rebuilt=rebuilt,
        notes=notes(anatomy, frames, length, method, options.method, edits, trainable=options.trainable),
    )


def _exvideo(checkpoint: Checkpoint, anatomy: Anatomy, options: ExtendOptions) -> Plan:
    if options.method is not None:
        raise PlanError(
            f"{anatomy.class_name}: is extended by ExVideo, which trains a table of positions and has no --method"
        )
    plan = plan_exvideo(checkpoint, anatomy, options.to, table_of=options.sinusoids, base_frames=options.base_frames)
    return replace(plan, options={"to": options.to, "num_frames": options.to, **plan.options})


def _method(anatomy: Anatomy, frames: Frames, length: Length, options: ExtendOptions) -> str:
    if options.method is None:
        return frames.method if length.is_longer else "none"
    if options.method not in frames.methods:
        raise PlanError(
            f"{anatomy.class_name}: --method {options.method} is not for it; choose from {', '.join(frames.methods)} "
            f"({frames.reason})"
        )
    if options.method != "none" and not length.is_longer:
        raise PlanError(
            f"--method {options.method}: {options.to} frames are no more than it was trained on "
            f"({length.base_frames}), so there is nothing to stretch. Leave --method out, or say --base-frames"
        )
    return options.method


def _resolved(length: Length, method: str, options: ExtendOptions) -> dict[str, Any]:
    resolved: dict[str, Any] = {
        "to": length.clip_frames,
        "num_frames": length.num_frames,
        "method": method,
        "base_frames": length.base_frames,
    }
    if options.trainable:
        resolved["trainable"] = True
    return resolved


def _rows(checkpoint: Checkpoint, changed: Mapping[str, PlannedTensor], method: str) -> dict[str, Any]:
    """How many rows stored tables had, where those still stand first, so that the step can be taken back."""
    rows = {checkpoint.tensors[name].shape[1] for name, new in changed.items() if isinstance(new.content, Values)}
    return {TABLE_ROWS: rows.pop()} if method == "none" and len(rows) == 1 else {}
