"""Sources without files: a program draws their clips.

They are named, not imported: the arrows go from the small world to here, and whoever asks for no drawn
clips loads nothing of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from .clip import ClipSource

WORLDS = dict.fromkeys(("shapes", "paraphrases"), "modelgrow.examples.shapes.source:open_shapes")
"""By the word in front of the colon of a spec: the function that opens it."""


class OpenWorld(Protocol):
    """How a world is opened. Raises `DataError` for options it does not know."""

    def __call__(self, spec: str, *, num_frames: int | None, height: int | None, width: int | None) -> ClipSource: ...


def world_of(spec: str) -> OpenWorld | None:
    """What opens a spec such as "shapes:2-3", or None if its first word names no world."""
    place = WORLDS.get(spec.partition(":")[0])
    if place is None:
        return None
    module, _, name = place.partition(":")
    return cast(OpenWorld, getattr(import_module(module), name))
