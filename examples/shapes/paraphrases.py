"""The small world in other people's words: "a crimson disc drifts west" is a red circle that moves left.

Every word of the short captions has synonyms. Some of them are held out: they stand in no caption for training, alone
or as a part of another, so a prompt made of them shows what a language model knows by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .captions import pick, place

if TYPE_CHECKING:
    import numpy as np

    from .scene import Object, Scene


@dataclass(frozen=True, kw_only=True)
class Words:
    """Ways to say one thing. `held_out` never stand in training."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def pick(self, rng: np.random.Generator, *, held_out: bool) -> str:
        return pick(rng, self.held_out if held_out else self.training)


COLOR_WORDS = {
    "red": Words(training=("red", "scarlet", "ruby", "crimson", "blood red"), held_out=("maroon", "vermilion")),
    "green": Words(training=("green", "jade", "lime green", "grass green", "olive"), held_out=("emerald",)),
    "blue": Words(training=("blue", "azure", "cobalt", "royal blue", "denim"), held_out=("sapphire",)),
    "yellow": Words(training=("yellow", "lemon", "canary yellow", "amber", "sunny"), held_out=("golden", "mustard")),
    "purple": Words(training=("purple", "lavender", "plum", "lilac", "mauve"), held_out=("violet", "grape")),
    "cyan": Words(training=("cyan", "aqua", "teal", "aquamarine", "ice blue"), held_out=("turquoise",)),
}
SHAPE_WORDS = {
    "circle": Words(training=("circle", "dot", "ball", "disc", "coin"), held_out=("sphere", "roundel")),
    "square": Words(training=("square", "block", "tile", "four-sided shape", "cube"), held_out=("box", "quadrangle")),
    "triangle": Words(
        training=("triangle", "wedge", "three-sided shape", "triangular shape", "cone"), held_out=("pyramid",)
    ),
    "cross": Words(training=("cross", "plus", "cross shape", "cruciform", "X"), held_out=("crucifix",)),
}
MOVES = Words(
    training=("moves", "glides", "slides", "travels", "floats", "heads", "drifts", "rolls"),
    held_out=("wanders", "sails"),
)
STAYS = Words(
    training=("stays still", "does not move", "rests in place", "is motionless", "stands still", "remains there"),
    held_out=("holds its position", "is frozen"),
)
_SIDES = {
    "right": ("right", "east"),
    "left": ("left", "west"),
    "up": ("up", "north"),
    "down": ("down", "south"),
}
_EDGES = {"right": "the right edge", "left": "the left edge", "up": "the top", "down": "the bottom"}


def _directions() -> dict[str, Words]:
    words = {}
    for side, (near, far) in _SIDES.items():
        plain = (near,) if side in ("up", "down") else (near, f"to the {near}")
        words[side] = Words(
            training=(*plain, far, f"{near}ward", f"toward {_EDGES[side]}", f"to the {far}"),
            held_out=(f"{far}ward",),
        )
    for rise, north in (("up", "north"), ("down", "south")):
        for side, east in (("right", "east"), ("left", "west")):
            corner = f"the {'top' if rise == 'up' else 'bottom'} {side} corner"
            words[f"{rise} {side}"] = Words(
                training=(f"{rise} and {side}", f"{rise} to the {side}", f"{north}{east}", f"toward {corner}"),
                held_out=(f"{north}{east}ward",),
            )
    return words


DIRECTION_WORDS = _directions()
BACKGROUND_WORDS = {
    "black": Words(training=("black", "pitch dark", "jet black"), held_out=("ebony",)),
    "gray": Words(training=("gray", "grey", "silver gray"), held_out=("ashen",)),
    "white": Words(training=("white", "snow white", "pure white"), held_out=("ivory",)),
    "navy": Words(training=("navy", "dark blue", "midnight blue"), held_out=("indigo",)),
}
SIZE_WORDS = {
    "small": Words(training=("small", "little", "small-sized"), held_out=("tiny", "miniature")),
    "large": Words(training=("large", "big", "large-sized"), held_out=("huge", "giant")),
}
_FORMS = ("{a} {color} {shape} {does}", "{a} {shape} in {color} {does}", "{a} {shape} that is {color} {does}")
_JOINS = (" and ", ", while ", "; ")
_LONG = (
    "{a} {size} {color} {shape} starts {place} and {does}.",
    "{place_first}, {a} {size} {color} {shape} {does}.",
    "There is {a} {size} {shape} in {color} {place}; it {does}.",
)
_GROUNDS = (
    "The background is {background}.",
    "Everything happens on {a} {background} background.",
    "Behind it all there is only {background}.",
)


def paraphrase(scene: Scene, rng: np.random.Generator, *, held_out: bool = False) -> str:
    """A short caption in other words, as "a scarlet ball glides west and a tile in azure does not move".

    Args:
        scene: What to say.
        rng: Every choice comes from it.
        held_out: All words from those that no training caption has.
    """
    parts = []
    for obj in scene.objects:
        words = _words(obj, rng, held_out=held_out)
        parts.append(_with_article(pick(rng, _FORMS), words))
    return pick(rng, _JOINS).join(parts)


def long_paraphrase(scene: Scene, rng: np.random.Generator, *, held_out: bool = False) -> str:
    """Size, place and background too, in other words."""
    sentences = []
    for obj in scene.objects:
        where = place(obj, scene)
        size = SIZE_WORDS[obj.size].pick(rng, held_out=held_out)
        words = {**_words(obj, rng, held_out=held_out), "size": size, "place": where, "place_first": where.capitalize()}
        sentences.append(_sentence(pick(rng, _LONG), words))
    ground = {"background": BACKGROUND_WORDS[scene.background].pick(rng, held_out=held_out)}
    sentences.insert(int(rng.integers(2)) * len(sentences), _sentence(pick(rng, _GROUNDS), ground))
    return " ".join(sentences)


def _words(obj: Object, rng: np.random.Generator, *, held_out: bool) -> dict[str, str]:
    does = STAYS.pick(rng, held_out=held_out)
    if obj.motion != "still":
        direction = DIRECTION_WORDS[obj.motion].pick(rng, held_out=held_out)
        does = f"{MOVES.pick(rng, held_out=held_out)} {direction}"
    color, shape = COLOR_WORDS[obj.color], SHAPE_WORDS[obj.shape]
    return {"color": color.pick(rng, held_out=held_out), "shape": shape.pick(rng, held_out=held_out), "does": does}


def _with_article(form: str, words: dict[str, str]) -> str:
    before, _, after = form.partition("{a} ")
    if not after:
        return form.format(**words)
    rest = after.format(**words)
    return f"{before.format(**words)}{'an' if rest[0].lower() in 'aeioux' else 'a'} {rest}"


def _sentence(form: str, words: dict[str, str]) -> str:
    text = _with_article(form, words)
    return text[0].upper() + text[1:]
