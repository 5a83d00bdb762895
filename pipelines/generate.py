"""From a prompt to a clip, with any of diffusers' text-to-video pipelines."""

from __future__ import annotations

import hashlib
import inspect
import math
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modelgrow.surgery import GenerateError, strict_json

from .foundation import is_foundation
from .load import GENERATION_NAME

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""

_FRAME_COUNTS = ("num_frames", "video_length")
_FRAME_RATES = ("frame_rate", "fps")
_POSITIVE = ("num_frames", "height", "width", "num_inference_steps", "fps")

_TRAINED_FPS = {"Wan": 16, "CogVideoX": 8, "HunyuanVideo": 24, "Mochi": 30, "Allegro": 15, "Latte": 8}
"""Frames per second of the clips that a family was trained on, by the start of its pipeline's name."""
_OTHER_FPS = 16

_SET_HERE = {"prompt", "generator", "latents", "output_type", "return_dict", "callback_on_step_end"}


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """What to make. None means: as generation.json in the pipeline's folder says, or else the pipeline's default."""

    prompt: str
    negative_prompt: str | None = None
    num_frames: int | None = None
    height: int | None = None
    """In pixels."""
    width: int | None = None
    """In pixels."""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 0
    """Of the starting noise, which is drawn on the CPU and so is the same for every device."""
    fps: int | None = None
    """Frames per second."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> GenerateOptions:
        """The options that make the clip again whose settings these are."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: settings[name] for name in names if name in settings})


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A clip and all that is needed to make it again."""

    frames: np.ndarray
    """Shape `(T, H, W, 3)`, uint8."""
    fps: int
    settings: Mapping[str, Any]
    """Ready for JSON. `model` and `revision` are as `load_pipeline` takes them, so None is the foundation;
    `frames_sha256` is of the frames as float32 in [0, 1], before they were rounded to uint8."""


def generate(pipeline: DiffusionPipeline, options: GenerateOptions, *, progress: Progress | None = None) -> Generated:
    """Run a text-to-video pipeline once.

    Args:
        pipeline: From `load_pipeline`, or any other of diffusers' that takes a prompt and a number of frames.
        options: What to make.
        progress: Told after each denoising step.

    Raises:
        GenerateError: The pipeline is none for text to video, or it can't make what is asked for.
    """
    arguments, fps = _resolve(pipeline, options)
    generator = torch.Generator("cpu").manual_seed(options.seed)
    output = _run(pipeline, {**arguments, "generator": generator}, progress)
    frames = _to_array(getattr(output, "frames", None), pipeline)
    if not np.isfinite(frames).all():
        raise GenerateError(
            f"{type(pipeline).__name__} made frames that are not finite numbers in {_dtype(pipeline)}; "
            "try another dtype: bfloat16 or float32"
        )
    settings = _describe(pipeline, options, arguments, frames, fps)
    return Generated(frames=(frames.clip(0, 1) * 255).round().astype(np.uint8), fps=fps, settings=settings)


def _resolve(pipeline: DiffusionPipeline, options: GenerateOptions) -> tuple[dict[str, Any], int]:
    """What to call the pipeline with, by its own names, and the frames per second."""
    parameters = _parameters(pipeline)
    chosen = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("prompt", "seed")}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    for name, value in chosen.items():
        _check(name, value, "asked for")
    if not 0 <= options.seed < 1 << 63:
        raise GenerateError(f"seed is {options.seed}; it must be at least 0 and less than 2**63")
    arguments = {**_recommended(pipeline, parameters), **chosen}
    fps = arguments.pop("fps", None)
    rate = next((name for name in _FRAME_RATES if name in parameters), None)
    if fps is not None and rate is not None:
        arguments[rate] = fps
    elif fps is None:
        fps = _default_fps(pipeline, None if rate is None else parameters[rate].default)
    if "num_frames" in arguments and "num_frames" not in parameters:
        arguments["video_length"] = arguments.pop("num_frames")
    unknown = [name for name in arguments if name not in parameters]
    if unknown:
        raise GenerateError(
            f"{type(pipeline).__name__} takes no {unknown[0]}; leave it out, its components decide that themselves"
        )
    if "output_type" in parameters:
        arguments["output_type"] = "np"
    return {"prompt": options.prompt, **arguments}, fps


def _parameters(pipeline: DiffusionPipeline) -> Mapping[str, inspect.Parameter]:
    """What `__call__` takes. Raises `GenerateError` unless that is a prompt and a number of frames, and no input."""
    name = type(pipeline).__name__
    parameters = inspect.signature(type(pipeline).__call__).parameters
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind not in kinds and p.name not in ("self", "prompt")
    ]
    if "prompt" not in parameters or not any(count in parameters for count in _FRAME_COUNTS):
        raise GenerateError(f"{name} is no text-to-video pipeline: it does not take a prompt and a number of frames")
    if needed:
        raise GenerateError(f"{name} is no text-to-video pipeline: it can't run without {', '.join(needed)}")
    return parameters


def _recommended(pipeline: DiffusionPipeline, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """generation.json in the pipeline's folder: "fps", and whatever of `__call__` is a number, text or switch."""
    path = Path(str(pipeline.name_or_path)) / GENERATION_NAME
    if pipeline.name_or_path is None or not path.is_file():
        return {}
    values = strict_json.read_object(path)
    for name, value in values.items():
        if name not in (*parameters, "num_frames", "fps") or name in _SET_HERE:
            raise GenerateError(f"{path}: {name!r} can't be set there; it is no setting of {type(pipeline).__name__}")
        if not isinstance(value, str | int | float):
            raise GenerateError(f"{path}: {name} is {value!r}; expected a number, a text, true or false")
        _check(name, value, str(path))
    return values


def _check(name: str, value: Any, where: str) -> None:
    if name in _POSITIVE and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise GenerateError(f"{name} is {value!r} ({where}); it must be a whole number of at least 1")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "guidance_scale" and not (number and math.isfinite(value)):
        raise GenerateError(f"{name} is {value!r} ({where}); it must be a finite number")


def _default_fps(pipeline: DiffusionPipeline, default: Any) -> int:
    if isinstance(default, int | float):
        return round(default)
    name = type(pipeline).__name__
    return next((fps for family, fps in _TRAINED_FPS.items() if name.startswith(family)), _OTHER_FPS)


def _run(pipeline: Any, arguments: Mapping[str, Any], progress: Progress | None) -> Any:
    what = type(pipeline).__name__
    try:
        with _reported(pipeline, progress) as callback:
            return pipeline(**arguments, **callback)
    except torch.OutOfMemoryError as error:
        raise GenerateError(
            f"{what}: out of memory. Ask for fewer frames or a smaller size, or keep weights in main memory "
            "with --offload model"
        ) from error
    except (ValueError, RuntimeError, TypeError) as error:
        asked = ", ".join(f"{name} {value}" for name, value in arguments.items() if name in _POSITIVE + _FRAME_COUNTS)
        raise GenerateError(f"{what} can't make this ({asked or 'its own defaults'}): {error}") from error


@contextmanager
def _reported(pipeline: Any, progress: Progress | None) -> Iterator[dict[str, Any]]:
    """The argument that reports steps. A pipeline without callbacks shows its own bar instead."""
    supported = "callback_on_step_end" in inspect.signature(type(pipeline).__call__).parameters
    config = dict(getattr(pipeline, "_progress_bar_config", {}))
    if progress is None or supported:
        pipeline.set_progress_bar_config(**{**config, "disable": True})

    def on_step_end(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if progress is not None:
            progress(step + 1, pipe.num_timesteps)
        return kwargs

    try:
        yield {"callback_on_step_end": on_step_end} if supported and progress is not None else {}
    finally:
        pipeline.set_progress_bar_config(**config)


def _to_array(output: Any, pipeline: DiffusionPipeline) -> np.ndarray:
    """The first clip of a batch, `(T, H, W, 3)` float32 in [0, 1], from whatever kind of frames came out."""
    if output is None or len(output) == 0:
        raise GenerateError(f"{type(pipeline).__name__} is no text-to-video pipeline: its output has no frames")
    clip = output[0]
    if isinstance(clip, torch.Tensor):
        clip = clip.float().movedim(-3, -1).cpu().numpy()
    if not isinstance(clip, np.ndarray):
        clip = np.stack([np.asarray(frame) for frame in clip])
    if clip.dtype == np.uint8:
        clip = clip / np.float32(255)
    if clip.ndim != 4 or clip.shape[3] != 3:
        raise GenerateError(
            f"{type(pipeline).__name__} made an output of shape {list(clip.shape)}; "
            "expected frames, height, width and three colors"
        )
    return np.ascontiguousarray(clip, dtype=np.float32)


def _describe(
    pipeline: DiffusionPipeline, options: GenerateOptions, arguments: Mapping[str, Any], frames: np.ndarray, fps: int
) -> dict[str, Any]:
    count, height, width, _ = frames.shape
    defaults = {name: parameter.default for name, parameter in _parameters(pipeline).items()}
    given = {name: value for name, value in arguments.items() if name not in _SET_HERE}
    made = {"num_frames": count, "height": height, "width": width}
    scheduler = getattr(pipeline, "scheduler", None)
    model, revision = _origin(pipeline)
    return {
        "model": model,
        "revision": revision,
        "pipeline": type(pipeline).__name__,
        "prompt": options.prompt,
        "negative_prompt": given.get("negative_prompt"),
        "seed": options.seed,
        **made,
        "num_inference_steps": given.get("num_inference_steps", defaults.get("num_inference_steps")),
        "guidance_scale": given.get("guidance_scale", defaults.get("guidance_scale")),
        "fps": fps,
        **{name: value for name, value in given.items() if name not in (*_FRAME_COUNTS, *_FRAME_RATES, *made)},
        "scheduler": None if scheduler is None else type(scheduler).__name__,
        "dtype": _dtype(pipeline),
        "device": str(pipeline._execution_device),
        "threads": torch.get_num_threads(),
        "versions": _versions(),
        "notes": _notes(arguments, made),
        "frames_sha256": hashlib.sha256(frames.tobytes()).hexdigest(),
    }


def _notes(arguments: Mapping[str, Any], made: Mapping[str, int]) -> list[str]:
    asked = {"num_frames": arguments.get("video_length"), **arguments}
    return [
        f"asked for {name} {asked[name]}, the model made {value}"
        for name, value in made.items()
        if asked.get(name) not in (None, value)
    ]


def _origin(pipeline: DiffusionPipeline) -> tuple[str | None, str | None]:
    """Model and revision: the Hub id and its commit where the folder lies in the Hub's cache, else the folder."""
    if pipeline.name_or_path is None:
        return "(built in memory)", None
    path = Path(pipeline.name_or_path)
    repo = path.parent.parent.name
    if path.parent.name == "snapshots" and repo.startswith("models--"):
        return repo.removeprefix("models--").replace("--", "/", 1), path.name
    return (None if is_foundation(path) else str(path)), None


def _dtype(pipeline: DiffusionPipeline) -> str:
    return str(pipeline.dtype).removeprefix("torch.")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("modelgrow", "torch", "diffusers", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
