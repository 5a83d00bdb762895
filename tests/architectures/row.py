"""What a row says of an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """`tiny` must exercise every branch that a block can have; `published` maps Hub ids to their configs."""

    name: str
    class_name: str
    tiny: Mapping[str, Any]
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(stack, mode) that must be refused for this config -> a part of the reason."""
