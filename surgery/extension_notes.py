"""What a user should know of a longer clip before it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .index import CLASS_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .anatomy import Anatomy
    from .extension import Length
    from .positions import Frames

_METHODS = {
    "none": "positions go on as they are, beyond what was trained",
    "interpolate": "positions are stretched into the trained range",
    "ntk": "slow frequencies are stretched, fast ones hardly",
    "yarn": "frequencies that turn less than once in a trained clip are stretched, those that turn often are not",
    "riflex": "the frequency that would make the clip begin anew is slowed down",
}

_RIFLEX_REACH = 2.5
"""Times the trained length beyond which a note warns; the paper has 2 without training and 3 with some."""


def notes(
    anatomy: Anatomy,
    frames: Frames,
    length: Length,
    method: str,
    asked: str | None,
    edits: Mapping[str, Any],
    *,
    trainable: bool,
) -> tuple[str, ...]:
    """Sentences, in the order of their importance."""
    found = [_arithmetic(frames, length)] if length.num_frames != length.clip_frames else []
    if not length.is_longer:
        found.append(
            f"it was trained on clips of {length.base_frames} frames, so that {length.clip_frames} need no extension: "
            "only the length of a clip that nobody asked for is set"
        )
        return tuple(found)
    why = frames.reason if asked is None and frames.reason else _METHODS[method]
    found.append(f"method {method}, from {length.base_frames} frames to {length.num_frames}: {why}")
    if method == "riflex" and length.stretch > _RIFLEX_REACH:
        found.append(
            f"RIFLEx was shown at up to twice the length without training, and this is {length.stretch:.1f} times: "
            "compare with --method interpolate, and train on long clips"
        )
    found.append(_unchanged(frames, length, method))
    if trainable and frames.kind == "weights":
        found.append(f"{frames.tables} are parameters already; the record names them, so that the trainer tunes them")
    elif trainable:
        found.append("positions train, with 'grow train'; at first they are as without --trainable")
    if CLASS_NAME in edits:
        found.append(
            f"config.json names {edits[CLASS_NAME]}: a diffusers script says 'import modelgrow.pipelines' first"
        )
    found.append(
        f"a clip has {length.stretch:.1f} times the latent frames; where attention is over all of them, it takes "
        f"{length.stretch**2:.1f} times the time"
    )
    return tuple(found)


def _arithmetic(frames: Frames, length: Length) -> str:
    return (
        f"--to {length.clip_frames}: the VAE decodes {frames.vae} frames, so {length.num_frames} are made and "
        f"'grow generate' drops the last {length.num_frames - length.clip_frames}; in a diffusers script say "
        f"num_frames={length.num_frames} and keep frames[:{length.clip_frames}]"
    )


def _unchanged(frames: Frames, length: Length, method: str) -> str:
    if frames.kind == "fixed":
        return f"its clips have exactly {length.num_frames} frames from now on, for the class takes one length only"
    if method == "none" and frames.kind != "learned":
        return f"clips of up to {length.base_frames} frames: unchanged, to the bit"
    if frames.kind in ("table", "weights", "config"):
        return (
            f"clips of EVERY length change, those of {length.base_frames} frames too: these positions are stored, and "
            "the stock class reads them as they are"
        )
    return (
        f"clips of up to {length.base_frames} frames: unchanged, to the bit; all longer ones have the positions of "
        f"{length.num_frames} frames"
    )
