"""What a pipeline is called with, by its own names: what was asked for, over generation.json, over its defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import GenerateError, strict_json
from modelgrow.surgery.selection import GENERATION_NAME

from .controls import THEIRS, parameters_for
from .given import INPUTS, check_inputs, read_inputs
from .inputs import frame_rate
from .parameters import FRAME_COUNTS, frame_count, parameters_of

if TYPE_CHECKING:
    import numpy as np
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from .generate import GenerateOptions

FRAME_RATES = ("frame_rate", "fps")
POSITIVE = ("num_frames", "height", "width", "num_inference_steps", "fps")
SET_HERE = {
    *THEIRS,
    "prompt",
    "image",
    "last_image",
    "video",
    "generator",
    "latents",
    "output_type",
    "return_dict",
    "callback_on_step_end",
}
"""What generation.json can't set, and what is no number, text or switch to be written down."""

_TRAINED_FPS = {
    "WanAnimate": 30,
    "Wan": 16,
    "CogVideoX": 8,
    "HunyuanVideo": 24,
    "Kandinsky5": 24,
    "Mochi": 30,
    "Allegro": 15,
    "EasyAnimate": 8,
    "Latte": 8,
}
"""Frames per second of the clips that a family was trained on, by the start of its pipeline's name; the first holds."""
_OTHER_FPS = 16


def resolve(
    pipeline: DiffusionPipeline,
    options: GenerateOptions,
    video: np.ndarray | None = None,
    extra: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], int]:
    """What to call the pipeline with, and the frames per second. The arguments are `generate`'s.

    Raises:
        GenerateError: It can't be called with what was asked for, or not without what was not given.
    """
    parameters = parameters_of(pipeline)
    check_inputs(pipeline, options, extra or {})
    chosen = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in (*INPUTS, "seed")}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    for name, value in chosen.items():
        check(name, value, "asked for")
    if not 0 <= options.seed < 1 << 63:
        raise GenerateError(f"seed is {options.seed}; it must be at least 0 and less than 2**63")
    # EasyAnimate's pipelines have None as their default, and fail without one all the same.
    unsaid = {"negative_prompt": ""} if "EasyAnimate" in type(pipeline).__name__ else {}
    arguments = {**unsaid, **recommended(pipeline), **(extra or {}), **chosen}
    fps = options.fps or _rate_of(options) or arguments.get("fps")
    arguments.pop("fps", None)
    rate = next((name for name in FRAME_RATES if name in parameters), None)
    if fps is not None and rate is not None:
        arguments[rate] = fps
    elif fps is None:
        fps = _default_fps(pipeline, None if rate is None else parameters[rate].default)
    names = [*(("num_frames", theirs) for theirs in FRAME_COUNTS[1:]), ("guidance_scale", "max_guidance_scale")]
    for ours, theirs in names:
        if ours in arguments and ours not in parameters and theirs in parameters:
            arguments[theirs] = arguments.pop(ours)
    if frame_count(parameters) is None and ("video" in parameters or parameters_for(pipeline)):
        arguments.pop("num_frames", None)  # the clip's own number, which `read_video` keeps to
    unknown = [name for name in arguments if name not in parameters]
    if unknown:
        raise GenerateError(
            f"{type(pipeline).__name__} takes no {unknown[0]}; leave it out, its components decide that themselves"
        )
    if "output_type" in parameters:
        arguments["output_type"] = "np"
    return {**arguments, **read_inputs(pipeline, options, arguments, video)}, fps


def recommended(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """generation.json in the pipeline's folder: "fps", and whatever of `__call__` is a number, text or switch.

    Raises:
        GenerateError: It sets what can't be set there.
    """
    path = Path(str(pipeline.name_or_path)) / GENERATION_NAME
    if pipeline.name_or_path is None or not path.is_file():
        return {}
    values = strict_json.read_object(path)
    for name, value in values.items():
        if name not in (*parameters_of(pipeline), "num_frames", "fps") or name in SET_HERE:
            raise GenerateError(f"{path}: {name!r} can't be set there; it is no setting of {type(pipeline).__name__}")
        if not isinstance(value, str | int | float):
            raise GenerateError(f"{path}: {name} is {value!r}; expected a number, a text, true or false")
        check(name, value, str(path))
    return values


def check(name: str, value: Any, where: str) -> None:
    """Raises `GenerateError` if no pipeline could take that value of a setting."""
    if name in POSITIVE and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise GenerateError(f"{name} is {value!r} ({where}); it must be a whole number of at least 1")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "guidance_scale" and not (number and math.isfinite(value)):
        raise GenerateError(f"{name} is {value!r} ({where}); it must be a finite number")
    if name == "strength" and not (number and 0 < value <= 1):
        raise GenerateError(f"{name} is {value!r} ({where}); it must be above 0 and at most 1")


def _rate_of(options: GenerateOptions) -> int | None:
    """A control clip's, so that what is made runs beside it."""
    rates = [frame_rate(Path(file)) for file in (options.controls or {}).values()]
    return next((max(1, round(rate)) for rate in rates if rate), None)


def _default_fps(pipeline: DiffusionPipeline, default: Any) -> int:
    if isinstance(default, int | float):
        return round(default)
    name = type(pipeline).__name__
    return next((fps for family, fps in _TRAINED_FPS.items() if name.startswith(family)), _OTHER_FPS)
