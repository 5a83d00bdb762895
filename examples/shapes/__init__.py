"""A small world: captioned clips of coloured shapes that move, drawn exactly and for ever.

    clip = make_clip(seed=0, index=7)         # the same clip on every machine
    clip.frames                               # (T, H, W, 3) uint8
    clip.caption                              # "a red circle moves right"
    read_clip(clip.frames)                    # back from pixels: the objects, what they are, where they go

Because a program draws the world, a program can read it back: prompt-following becomes a number
that needs no download and no judge.
"""

if not __name__.startswith("modelgrow."):
    raise ImportError("import this as 'modelgrow.examples.shapes'; run 'pip install -e .' in the clone first")

from .captions import detailed_caption, short_caption
from .clips import Clip, make_clip
from .reader import Reading, Score, SeenObject, read_clip, score
from .render import render
from .scene import BACKGROUNDS, COLORS, MOTIONS, SHAPES, SIZES, Object, Scene, sample_scene

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "MOTIONS",
    "SHAPES",
    "SIZES",
    "Clip",
    "Object",
    "Reading",
    "Scene",
    "Score",
    "SeenObject",
    "detailed_caption",
    "make_clip",
    "read_clip",
    "render",
    "sample_scene",
    "score",
    "short_caption",
]
