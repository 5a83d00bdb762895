"""What a pipeline's call takes, and what it can't do without."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

Parameters = Mapping[str, inspect.Parameter]

FRAME_COUNTS = ("num_frames", "video_length", "frames")
"""What pipelines call the length of a clip in frames."""


def parameters_of(pipeline: Any) -> Parameters:
    """What `__call__` takes."""
    return inspect.signature(type(pipeline).__call__).parameters


def required(parameters: Parameters) -> set[str]:
    """The names of those without a default."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name for p in parameters.values() if p.default is p.empty and p.kind not in kinds and p.name != "self"}


def frame_count(parameters: Parameters) -> str | None:
    """What this pipeline calls the length, if it can be told one."""
    return next((name for name in FRAME_COUNTS if name in parameters), None)
