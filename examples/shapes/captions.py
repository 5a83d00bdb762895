"""Scene to words: a short caption as a user would type it, and a long one that says everything.

The short caption names colour, shape and motion. Size, place and background stand only in the
long one: that is what a model grown to read longer prompts has left to learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .scene import Object, Scene

if TYPE_CHECKING:
    import numpy as np

_COUNTS = {1: "one object", 2: "two objects", 3: "three objects"}
_SIZES = {"small": ("small", "little"), "large": ("large", "big")}
_OPENINGS = (
    "On a plain {background} background there {are} {count}.",
    "The scene shows {count} on a plain {background} background.",
    "A plain {background} background holds {count}.",
)
_STILL = (
    "A {size} {color} {shape} rests {place} of the frame and stays still for the whole clip.",
    "A {size} {color} {shape} stays still {place} of the frame and does not move at all.",
)
_MOVING = (
    "A {size} {color} {shape} starts {place} of the frame and moves {motion} at a steady speed.",
    "A {size} {color} {shape} begins {place} of the frame and then moves steadily {motion}.",
)
_CLOSINGS = (
    "The edges are crisp, the colors are flat, and the camera does not move.",
    "The camera is fixed, the light is even, and nothing else is in the picture.",
)


def motion_phrase(motion: str) -> str:
    """ "up left" to "moves up and left", "still" to "stays still"."""
    return "stays still" if motion == "still" else "moves " + motion.replace(" ", " and ")


def short_caption(scene: Scene) -> str:
    """For example "a red circle moves right and a blue square stays still"."""
    parts = [f"a {obj.color} {obj.shape} {motion_phrase(obj.motion)}" for obj in scene.objects]
    if len(parts) == 1:
        return parts[0]
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def detailed_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Everything the scene holds, in one of many wordings. 30 to 80 words."""
    count = len(scene.objects)
    opening = pick(rng, _OPENINGS).format(
        background=scene.background, count=_COUNTS[count], are="is" if count == 1 else "are"
    )
    return " ".join([opening, *(_describe(obj, scene, rng) for obj in scene.objects), pick(rng, _CLOSINGS)])


def _describe(obj: Object, scene: Scene, rng: np.random.Generator) -> str:
    return pick(rng, _STILL if obj.motion == "still" else _MOVING).format(
        Article="A",
        size=pick(rng, _SIZES[obj.size]),
        color=obj.color,
        shape=obj.shape,
        place=place(obj, scene),
        motion=obj.motion.replace(" ", " and "),
    )


def place(obj: Object, scene: Scene) -> str:
    """Where an object is in the first frame, on a grid of three by three: "at the top left"."""
    width, height = scene.extent
    column = ("left", "", "right")[min(int(3 * obj.x / width), 2)]
    row = ("top", "", "bottom")[min(int(3 * obj.y / height), 2)]
    words = " ".join(word for word in (row, column) if word)
    return f"at the {words}" if words else "in the center"


def pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
