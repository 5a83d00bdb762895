"""generation.json at the top of a pipeline: how long a clip is that nobody asked for. `grow generate` reads it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import strict_json
from .anatomy_files import anatomies
from .extend_frames import plan_extend_frames
from .extension import OPERATION, extension_of
from .job import prepare
from .regular import check_link
from .selection import GENERATION_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .anatomy import Anatomy
    from .checkpoint import Checkpoint
    from .extend_frames import ExtendOptions
    from .job import Job
    from .plan import Plan
    from .source import Source
    from .step import Step

LENGTH = "num_frames"
BEFORE = "default_before"
"""Option of a step that set the length: what it was; null for none."""


def prepare_extend(
    source: Source,
    options: ExtendOptions,
    *,
    components: Sequence[str] = (),
    known: Mapping[str, Anatomy] | None = None,
) -> Job:
    """Plan longer clips and validate; nothing is written.

    Where a pipeline's generation.json says how long its clips are, those are taken for what it was trained on. The
    config of its VAE says which lengths can be decoded.

    Raises:
        SourceError: Nothing there makes clips.
        PlanError, CheckpointError: See `plan_extend_frames`.
    """
    known = anatomies() if known is None else known
    settings = _settings(source)
    before = settings.get(LENGTH)
    vae = next((c.checkpoint.config for c in source.components if c.name == "vae" and c.checkpoint is not None), {})
    options = replace(options, vae=options.vae or vae)
    if options.base_frames is None and type(before) is int and before > 0 and not _is_extended(source):
        options = replace(options, base_frames=before)

    def operation(checkpoint: Checkpoint, anatomy: Anatomy) -> Plan:
        plan = plan_extend_frames(checkpoint, anatomy, options)
        return plan if source.pipeline is None else replace(plan, options={**plan.options, BEFORE: before})

    job = prepare(source, operation, components=components, known=known)
    return replace(job, texts=_texts(source, {**settings, LENGTH: options.to}))


def _is_extended(source: Source) -> bool:
    return any(c.checkpoint is not None and extension_of(c.checkpoint.config) for c in source.components)


def restored(source: Source, steps: Sequence[Step]) -> dict[str, str]:
    """The texts that take back what `steps` set; none if they set nothing."""
    befores = [step.options[BEFORE] for step in steps if step.operation == OPERATION and BEFORE in step.options]
    return _texts(source, {**_settings(source), LENGTH: befores[0]}) if befores else {}


def _texts(source: Source, settings: Mapping[str, Any]) -> dict[str, str]:
    if source.pipeline is None:
        return {}
    kept = {name: value for name, value in settings.items() if value is not None}
    return {GENERATION_NAME: strict_json.dump(kept) if kept else ""}


def _settings(source: Source) -> dict[str, Any]:
    """generation.json; nothing where there is none. Raises `CheckpointError` if it is damaged."""
    path = source.path / GENERATION_NAME
    if source.pipeline is None or not os.path.lexists(path):
        return {}
    check_link(path, source.path)
    return dict(strict_json.read_object(path))
