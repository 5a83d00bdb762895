"""Checkpoint surgery: headers in, plans in the middle, bytes out. No torch, no model is built.

    source = open_source("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    options = ExpandOptions(mode="suffix", blocks=8)
    job = prepare(source, lambda checkpoint, anatomy: plan_expand(checkpoint, anatomy, options))
    execute(job, Path("wan-suffix8"))

An operation is a pure function from a `Checkpoint` and its `Anatomy` to a `Plan`; `prepare`
validates plans, `execute` writes a folder that diffusers loads, complete or not at all.
"""

if not __name__.startswith("modelgrow."):
    raise ImportError("import this as 'modelgrow.surgery'; run 'pip install -e .' in the clone first")

from .anatomy import Anatomy, Stack
from .anatomy_files import anatomies
from .checkpoint import Checkpoint, open_checkpoint
from .clip_default import prepare_extend
from .content import Copy, Drawn, Piece, Pieces, Values, Zeros
from .errors import (
    AnatomyError,
    CheckpointError,
    DataError,
    GenerateError,
    GrowError,
    OutputError,
    PlanError,
    SourceError,
    TrainError,
    VerifyError,
)
from .expand import plan_expand
from .extend_frames import ExtendOptions, plan_extend_frames
from .inspect import SourceReport, inspect
from .job import Job, default_output, execute, prepare
from .order import ExpandOptions
from .plan import Plan, PlannedTensor
from .record import Record
from .source import Component, Source, open_source
from .tensor import Tensor

__all__ = [
    "Anatomy",
    "AnatomyError",
    "Checkpoint",
    "CheckpointError",
    "Component",
    "Copy",
    "DataError",
    "Drawn",
    "ExpandOptions",
    "ExtendOptions",
    "GenerateError",
    "GrowError",
    "Job",
    "OutputError",
    "Piece",
    "Pieces",
    "Plan",
    "PlanError",
    "PlannedTensor",
    "Record",
    "Source",
    "SourceError",
    "SourceReport",
    "Stack",
    "Tensor",
    "TrainError",
    "Values",
    "VerifyError",
    "Zeros",
    "anatomies",
    "default_output",
    "execute",
    "inspect",
    "open_checkpoint",
    "open_source",
    "plan_expand",
    "plan_extend_frames",
    "prepare",
    "prepare_extend",
]
