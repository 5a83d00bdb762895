"""`grow attach-llm` from a source to a job: which components get a slot, and what comes along."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from .anatomy_files import anatomies
from .attach_llm import plan_attach_llm
from .errors import PlanError
from .grown import stock_name
from .job import prepare
from .slot import slot_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .anatomy import Anatomy
    from .attach_llm import AttachOptions
    from .job import Job
    from .source import Source

_SHARED = ("llm_dim", "model", "revision", "layer", "template", "max_length")
"""What the slots of one pipeline must agree on: it reads a prompt once."""


def prepare_attach_llm(
    source: Source,
    options: AttachOptions,
    *,
    components: Sequence[str] = (),
    known: Mapping[str, Anatomy] | None = None,
    include: bool = False,
) -> Job:
    """Plan and validate; nothing is written.

    Args:
        source: Where it comes from.
        options: How the slot is made.
        components: Names of a pipeline's components; all that can have a slot if empty.
        known: The architectures by class name; those that come along if None.
        include: Put the language model and its tokenizer into the pipeline's folder.

    Raises:
        SourceError: There is nothing that could have a slot, or the language model has no weights or tokenizer.
        PlanError, CheckpointError: See `plan_attach_llm`.
    """
    if include:  # it needs no other place then, and a path of one machine means nothing on the next
        name = os.path.basename(options.llm.name) if os.path.isabs(options.llm.name) else options.llm.name
        options = replace(options, llm=replace(options.llm, name=name))
    known = anatomies() if known is None else known
    able = {name: anatomy for name, anatomy in known.items() if any(stack.slot for stack in anatomy.stacks)}
    some = any(stock_name(component.class_name) in able for component in source.components)
    job = prepare(
        source,
        lambda checkpoint, anatomy: plan_attach_llm(checkpoint, anatomy, options, pipeline=source.pipeline),
        components=components,
        known=able if some and not components else known,
    )
    _check_others(job)
    if not include:
        return job
    if source.pipeline is None:
        raise PlanError(f"{source.name}: no pipeline, so there is no place for the language model; leave it out")
    entries = options.llm.entries()
    plans = {name: replace(plan, pipeline_edits={**plan.pipeline_edits, **entries}) for name, plan in job.plans.items()}
    source = replace(job.source, elsewhere={**job.source.elsewhere, **options.llm.elsewhere})
    return replace(job, source=source, plans=plans, added=tuple(options.llm.files()))


def _check_others(job: Job) -> None:
    """Two components of a pipeline read the same states."""
    new = slot_of(next(iter(job.plans.values())).config_edits) or {}
    for component in job.source.components:
        old = slot_of(component.checkpoint.config) if component.checkpoint is not None else None
        for key in _SHARED if old is not None and component.name not in job.plans else ():
            if old is not None and old.get(key) != new.get(key):
                raise PlanError(
                    f"{job.source.name}: {component.name} has a slot with {key} = {old.get(key)!r}, this one would "
                    f"have {new.get(key)!r}; a pipeline reads its prompt once, so both must be the same"
                )
