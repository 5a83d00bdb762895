"""All that is needed to make a clip again, ready for JSON."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .arguments import FRAME_RATES, SET_HERE
from .foundation import is_foundation
from .parameters import FRAME_COUNTS, parameters_of

if TYPE_CHECKING:
    import numpy as np
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from .generate import GenerateOptions

_COMPONENT = "_modelgrow_component"
"""Attribute of a pipeline that was put together of two."""


def describe(
    pipeline: DiffusionPipeline, options: GenerateOptions, arguments: Mapping[str, Any], frames: np.ndarray, fps: int
) -> dict[str, Any]:
    """The settings of `Generated`, of a clip `(T, H, W, 3)` float32 in [0, 1]."""
    count, height, width, _ = frames.shape
    defaults = {name: parameter.default for name, parameter in parameters_of(pipeline).items()}
    given = {name: value for name, value in arguments.items() if name not in SET_HERE}
    made = {"num_frames": count, "height": height, "width": width}
    scheduler = getattr(pipeline, "scheduler", None)
    return {
        **_parts(pipeline),
        "pipeline": type(pipeline).__name__,
        "prompt": options.prompt,
        **_files(options),
        "negative_prompt": given.get("negative_prompt"),
        "seed": options.seed,
        **made,
        "num_inference_steps": given.get("num_inference_steps", defaults.get("num_inference_steps")),
        "guidance_scale": given.get("guidance_scale", given.get("max_guidance_scale", defaults.get("guidance_scale"))),
        "fps": fps,
        **{name: value for name, value in given.items() if name not in (*FRAME_COUNTS, *FRAME_RATES, *made)},
        "scheduler": None if scheduler is None else type(scheduler).__name__,
        "dtype": dtype_name(pipeline),
        "device": str(pipeline._execution_device),
        "threads": torch.get_num_threads(),
        "versions": _versions(),
        "notes": _notes(arguments, made),
        "frames_sha256": hashlib.sha256(frames.tobytes()).hexdigest(),
    }


def _files(options: GenerateOptions) -> dict[str, Any]:
    """What the clip was made from, besides the prompt."""
    pictures = {"image": options.image, "last_image": options.last_image, "video": options.video}
    controls = None if options.controls is None else dict(options.controls)
    return {name: value for name, value in {**pictures, "controls": controls}.items() if value is not None}


def _notes(arguments: Mapping[str, Any], made: Mapping[str, int]) -> list[str]:
    asked = {"num_frames": arguments.get("video_length"), **arguments}
    return [
        f"asked for {name} {asked[name]}, the model made {value}"
        for name, value in made.items()
        if asked.get(name) not in (None, value)
    ]


def came_from(pipeline: Any, model: str, revision: str | None, *, place: str) -> Any:
    """The pipeline, which from now on says where the component in this place was loaded from."""
    setattr(pipeline, _COMPONENT, {"model": model, "revision": revision, "component": place})
    return pipeline


def _parts(pipeline: DiffusionPipeline) -> dict[str, str | None]:
    """The model; of a component by itself, the pipeline that it runs in too."""
    model, revision = origin(pipeline)
    component = getattr(pipeline, _COMPONENT, None)
    if component is None:
        return {"model": model, "revision": revision}
    return {**component, "runs_in": model, "runs_in_revision": revision}


def origin(pipeline: DiffusionPipeline) -> tuple[str | None, str | None]:
    """Model and revision: the Hub id and its commit where the folder lies in the Hub's cache, else the folder."""
    if pipeline.name_or_path is None:
        return "(built in memory)", None
    path = Path(pipeline.name_or_path)
    repo = path.parent.parent.name
    if path.parent.name == "snapshots" and repo.startswith("models--"):
        return repo.removeprefix("models--").replace("--", "/", 1), path.name
    return (None if is_foundation(path) else str(path)), None


def dtype_name(pipeline: DiffusionPipeline) -> str:
    """Such as "bfloat16"."""
    return str(pipeline.dtype).removeprefix("torch.")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("modelgrow", "torch", "diffusers", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
