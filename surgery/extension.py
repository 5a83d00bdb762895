"""The numbers of a longer clip, and what they are in config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, PlanError
from .grown import grown_name
from .index import CLASS_NAME
from .positions import ROPE_DIMS

if TYPE_CHECKING:
    from .anatomy import Anatomy
    from .checkpoint import Checkpoint
    from .positions import Frames

OPERATION = "extend-frames"
KEY = "frame_extension"
"""Of config.json: what the generated class does to its positions."""
LATENT = "latent frames"
"""`Frames.unit` where config keys count those."""
_CLASS_KINDS = ("rope", "sincos", "learned")
"""Kinds of positions that the model computes, so that it takes a class to compute them otherwise."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long clips were, and are to be."""

    clip_frames: int
    """That the user wants."""
    num_frames: int
    """That the VAE decodes."""
    latents: int
    """Latent frames of those."""
    base_frames: int
    """Frames of the clips that the base was trained on."""
    base_latents: int

    @property
    def is_longer(self) -> bool:
        return self.latents > self.base_latents

    @property
    def stretch(self) -> float:
        return self.latents / self.base_latents


def length_of(checkpoint: Checkpoint, anatomy: Anatomy, frames: Frames, wanted: int, base: int | None) -> Length:
    """Raises `PlanError` if it makes no clips, or if nobody knows how long those were that it was trained on."""
    if frames.kind == "none":
        raise PlanError(f"{anatomy.class_name} makes images, and an image has no frames to extend")
    if not frames.kind:
        raise PlanError(
            f"{anatomy.class_name}: its anatomy does not say where positions live. Declare kind, vae, trained_frames "
            "and methods under [frames] (docs/anatomy.md), and come back with --anatomy FILE"
        )
    num_frames = frames.fit(wanted)
    if frames.kind == "learned" and frames.trained_key:
        base = None  # as long as its table is
    latents = frames.latents(frames.fit(base)) if base is not None else _trained(checkpoint, anatomy, frames)
    return Length(
        clip_frames=wanted,
        num_frames=num_frames,
        latents=frames.latents(num_frames),
        base_frames=frames.pixels(latents),
        base_latents=latents,
    )


def _trained(checkpoint: Checkpoint, anatomy: Anatomy, frames: Frames) -> int:
    """Latent frames."""
    earlier = extension_of(checkpoint.config)
    if earlier is not None:
        return int(earlier["base_frames"])
    if frames.trained_frames is not None:
        return frames.latents(frames.trained_frames)
    value = anatomy.value(checkpoint.config, frames.trained_key) if frames.trained_key else None
    value = value[0] if isinstance(value, list | tuple) and value else value
    if type(value) is not int or value < 1:
        raise PlanError(
            f"{checkpoint.path}: {frames.trained_key or 'trained_frames'} is {value!r:.60}, so nothing says how long "
            "the clips were that it was trained on. Say --base-frames"
        )
    return value if frames.unit == LATENT else frames.latents(frames.fit(value))


def extension_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What an earlier extension wrote. Raises `CheckpointError` if it is damaged."""
    found = config.get(KEY)
    if found is None:
        return None
    if not isinstance(found, dict) or type(found.get("base_frames")) is not int or found["base_frames"] < 1:
        raise CheckpointError(f"config.json: {KEY} is {found!r:.100}, expected what 'grow extend-frames' writes")
    return found


def config_edits(
    checkpoint: Checkpoint, anatomy: Anatomy, frames: Frames, length: Length, method: str
) -> dict[str, Any]:
    """Keys of the stock class: limits, the pipeline's default, and scales."""
    edits: dict[str, Any] = {}
    limit = anatomy.value(checkpoint.config, frames.limit_key) if frames.limit_key else None
    first = limit[0] if isinstance(limit, list | tuple) and limit else limit
    if frames.limit_key and type(first) is int and first < length.latents:
        longer = [length.latents, *limit[1:]] if isinstance(limit, list | tuple) else length.latents
        edits[frames.limit_key] = longer
    if frames.default_key and frames.kind != "learned":  # there it is also the height of the trained table
        edits[frames.default_key] = length.latents if frames.unit == LATENT else length.num_frames
    for key in frames.scale_keys if method == "interpolate" else ():
        edits[key] = math.ceil(anatomy.value(checkpoint.config, key) * length.stretch)
    return {key: value for key, value in edits.items() if checkpoint.config.get(key) != value}


def class_edits(
    checkpoint: Checkpoint, anatomy: Anatomy, frames: Frames, length: Length, method: str, *, trainable: bool
) -> dict[str, Any]:
    """The generated class and what it is told, where the stock one can't do it."""
    earlier = extension_of(checkpoint.config)
    trainable = trainable or bool(earlier and earlier.get("trainable"))
    if not _needs_class(frames, length, method, trainable=trainable) and earlier is None:
        return {}
    extension: dict[str, Any] = {
        "kind": frames.kind,
        "method": method,
        "base_frames": length.base_latents,
        "frames": length.latents,
        "num_frames": length.num_frames,
        "clip_frames": length.clip_frames,
        "trainable": trainable,
    }
    if frames.rope_dim is not None and frames.kind != "sincos":
        extension["dim"] = rope_dim(checkpoint, anatomy, frames)
        theta = anatomy.value(checkpoint.config, frames.theta_key) if frames.theta_key else None
        extension["theta"] = float(frames.theta if theta is None else theta)
    grown = grown_name(anatomy.runs_as or anatomy.class_name)
    return {**({} if checkpoint.class_name == grown else {CLASS_NAME: grown}), KEY: extension}


def _needs_class(frames: Frames, length: Length, method: str, *, trainable: bool) -> bool:
    if frames.kind in _CLASS_KINDS:
        fixed = frames.kind == "sincos" and frames.limit_key is not None  # one length and no other, as in Latte
        return trainable or method != "none" or (frames.kind == "learned" and length.is_longer) or fixed
    return trainable and frames.kind == "table"


def rope_dim(checkpoint: Checkpoint, anatomy: Anatomy, frames: Frames) -> int:
    """Channels of a head that turn with the frame. Raises `CheckpointError` if the config does not say."""
    first, sign, second = frames.rope_key.partition(" // " if " // " in frames.rope_key else " * ")
    values = [anatomy.value(checkpoint.config, key) for key in (first, second) if key]
    try:
        given = values[0] // values[1] if "//" in sign else math.prod(values) if sign else values[0]
        dim = ROPE_DIMS[str(frames.rope_dim)](given)
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{checkpoint.path}: config.json's {frames.rope_key} is {values!r:.60}, which is no size of heads"
        ) from error
    if dim < 2:
        raise CheckpointError(f"{checkpoint.path}: {frames.rope_key} = {values!r:.60} leaves no channels for time")
    return dim
