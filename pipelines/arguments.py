"""What a pipeline is called with, by its own names: what was asked for, over generation.json, over its defaults."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import GenerateError, strict_json
from modelgrow.surgery.selection import GENERATION_NAME

from .controls import NAMES as CONTROL_CLIPS
from .controls import THEIRS
from .inputs import as_pictures, fit, read_image, read_video

if TYPE_CHECKING:
    import numpy as np
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from .generate import GenerateOptions

Parameters = Mapping[str, inspect.Parameter]

FRAME_COUNTS = ("num_frames", "video_length", "frames", "segment_frame_length")
FRAME_RATES = ("frame_rate", "fps")
POSITIVE = ("num_frames", "height", "width", "num_inference_steps", "fps")
SET_HERE = {
    *THEIRS,
    "prompt",
    "image",
    "last_image",
    "video",
    "mask",
    "controls",
    *CONTROL_CLIPS,
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
_INPUTS = ("prompt", "image", "video")


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
    _check_inputs(pipeline, parameters, options, extra or {})
    chosen = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in (*_INPUTS, "seed")}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    for name, value in chosen.items():
        check(name, value, "asked for")
    if not 0 <= options.seed < 1 << 63:
        raise GenerateError(f"seed is {options.seed}; it must be at least 0 and less than 2**63")
    # EasyAnimate's pipelines have None as their default, and fail without one all the same.
    unsaid = {"negative_prompt": ""} if "EasyAnimate" in type(pipeline).__name__ else {}
    arguments = {**unsaid, **recommended(pipeline), **(extra or {}), **chosen}
    fps = arguments.pop("fps", None)
    rate = next((name for name in FRAME_RATES if name in parameters), None)
    if fps is not None and rate is not None:
        arguments[rate] = fps
    elif fps is None:
        fps = _default_fps(pipeline, None if rate is None else parameters[rate].default)
    names = [*(("num_frames", theirs) for theirs in FRAME_COUNTS[1:]), ("guidance_scale", "max_guidance_scale")]
    for ours, theirs in names:
        if ours in arguments and ours not in parameters and theirs in parameters:
            arguments[theirs] = arguments.pop(ours)
    if "video" in parameters and not any(count in parameters for count in FRAME_COUNTS):
        arguments.pop("num_frames", None)  # the clip's own number, which `read_video` keeps to
    unknown = [name for name in arguments if name not in parameters]
    if unknown:
        raise GenerateError(
            f"{type(pipeline).__name__} takes no {unknown[0]}; leave it out, its components decide that themselves"
        )
    if "output_type" in parameters:
        arguments["output_type"] = "np"
    return {**_read_inputs(options, parameters, arguments, video), **arguments}, fps


def parameters_of(pipeline: DiffusionPipeline) -> Parameters:
    """What `__call__` takes."""
    return inspect.signature(type(pipeline).__call__).parameters


def required(parameters: Parameters) -> set[str]:
    """The names of those without a default."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name for p in parameters.values() if p.default is p.empty and p.kind not in kinds and p.name != "self"}


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


def _check_inputs(
    pipeline: DiffusionPipeline, parameters: Parameters, options: GenerateOptions, extra: Mapping[str, Any]
) -> None:
    """A prompt, a picture or a clip: what the pipeline takes of them, all that it needs, and nothing else."""
    name = type(pipeline).__name__
    counted = any(count in parameters for count in FRAME_COUNTS)
    if not any(given in parameters for given in _INPUTS) or not (counted or "video" in parameters):
        raise GenerateError(
            f"{name} makes no clips: it does not take a prompt, a picture or a clip, and a number of frames"
        )
    needed = [*sorted(required(parameters)), *(["prompt"] if "prompt" in parameters else [])]
    # Many have None as their default, and fail without it all the same.
    needed += ["video"] if "video" in parameters and "VideoToVideo" in name else []
    needed += ["image"] if "image" in parameters and "ImageToVideo" in name else []
    if options.strength is not None and options.video is None:
        raise GenerateError("strength says how far a clip is made anew; give the clip with --video")
    for what in _INPUTS:
        if getattr(options, what) is not None and what not in parameters:
            other = next((name for name in ("image", "video", "prompt") if name in parameters), what)
            how = " (--first-frame-model makes one from the prompt)" if (what, other) == ("prompt", "image") else ""
            raise GenerateError(f"{name} takes no {what}; leave --{what} out and give --{other}{how}")
    for what in (name for name in needed if name not in extra):
        if what not in _INPUTS:
            raise GenerateError(f"{name} can't run without {what}, which 'grow generate' has no option for")
        if getattr(options, what) is None:
            raise GenerateError(f"{name} can't run without {what}; give one with --{what}")
    if not needed and options.image is None and options.video is None:
        raise GenerateError(f"{name} starts from a picture; give one with --image or --first-frame-model")


def _read_inputs(
    options: GenerateOptions, parameters: Parameters, arguments: Mapping[str, Any], video: np.ndarray | None
) -> dict[str, Any]:
    """Prompt, picture and clip, the latter two cropped to the aspect of what will be made, never stretched."""
    sizes = [arguments.get(side, parameters[side].default) for side in ("width", "height") if side in parameters]
    size = (sizes[0], sizes[1]) if len(sizes) == 2 and all(isinstance(side, int) for side in sizes) else None
    inputs: dict[str, Any] = {}
    if options.prompt is not None:
        inputs["prompt"] = options.prompt
    if options.image is not None:
        inputs["image"] = fit(read_image(Path(options.image)), size)
    if options.video is not None:
        frames = read_video(Path(options.video), limit=options.num_frames) if video is None else as_pictures(video)
        inputs["video"] = [fit(frame, size) for frame in frames]
    return inputs


def _default_fps(pipeline: DiffusionPipeline, default: Any) -> int:
    if isinstance(default, int | float):
        return round(default)
    name = type(pipeline).__name__
    return next((fps for family, fps in _TRAINED_FPS.items() if name.startswith(family)), _OTHER_FPS)
