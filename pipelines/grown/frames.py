"""Longer clips: what `grow extend-frames` wrote to config.json as `frame_extension`, done to a model.

    {"kind": "rope", "method": "riflex", "base_frames": 21, "frames": 33, "num_frames": 129, "clip_frames": 128,
     "trainable": false, "theta": 10000.0, "dim": 44}

`base_frames` and `frames` are latent frames, of the clips that the base was trained on and of those that are wanted;
`num_frames` is what to ask a pipeline for. Clips no longer than the base's run the stock code, untouched, so that they
come out equal to the bit; all longer ones have the positions of a clip of `frames` latent frames, or of their own
length if that is more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelgrow.surgery import CheckpointError

from . import frames_given, frames_rope, frames_table

Install = Callable[[Any, Mapping[str, Any]], None]
Adjust = Callable[[Any, dict[str, Any]], dict[str, Any]]

_INSTALL: dict[str, Install] = {**frames_rope.INSTALL, **frames_given.INSTALL, **frames_table.INSTALL}
_ADJUST: dict[str, Adjust] = frames_given.ADJUST
_NUMBERS = ("base_frames", "frames", "num_frames")


def install(model: Any, frame_extension: Mapping[str, Any]) -> None:
    """Give a stock model longer positions. Raises `CheckpointError` if the config's entry does not fit it."""
    name = model.stock.__name__
    if name not in _INSTALL:
        raise CheckpointError(f"config.json: frame_extension is there, and {name} is not extended by a class")
    for key in _NUMBERS:
        value = frame_extension.get(key)
        if type(value) is not int or value < 1:
            raise CheckpointError(f"config.json: frame_extension.{key} is {value!r:.60}, expected a positive number")
    if frame_extension.get("method") not in ("none", *frames_rope.METHODS):
        raise CheckpointError(
            f"config.json: frame_extension.method is {frame_extension.get('method')!r:.60}, expected none, "
            f"{', '.join(frames_rope.METHODS)}"
        )
    _INSTALL[name](model, frame_extension)


def adjust(model: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of one forward pass, with longer positions where a pipeline hands them in."""
    change = _ADJUST.get(model.stock.__name__)
    return kwargs if change is None else change(model, kwargs)
