"""The first frame of a clip from any text-to-image pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL.PngImagePlugin import PngInfo

from modelgrow.surgery import GenerateError, strict_json
from modelgrow.surgery.disk import as_output_error

from .arguments import recommended
from .parameters import FRAME_COUNTS, parameters_of, required
from .provenance import dtype_name, origin

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class FirstFrame:
    """A picture in RGB and all that is needed to make it again, ready for JSON."""

    image: Image
    settings: Mapping[str, Any]


def make_first_frame(
    pipeline: DiffusionPipeline, prompt: str, *, negative_prompt: str | None = None, seed: int = 0
) -> FirstFrame:
    """Run a text-to-image pipeline once, at its own size and with its own settings or those of its generation.json.

    Args:
        pipeline: From `load_pipeline`.
        prompt: What the picture should show.
        negative_prompt: What it should not show, if the pipeline takes that.
        seed: Of the noise, drawn on the CPU.

    Raises:
        GenerateError: The pipeline makes no pictures from a prompt, or fails.
    """
    what, parameters = type(pipeline).__name__, parameters_of(pipeline)
    needed = required(parameters) - {"prompt"}
    if "prompt" not in parameters or needed or any(name in parameters for name in FRAME_COUNTS):
        raise GenerateError(f"{what} makes no pictures from a prompt; the first frame needs a text-to-image pipeline")
    arguments = {"prompt": prompt, **recommended(pipeline)}
    if negative_prompt is not None and "negative_prompt" in parameters:
        arguments["negative_prompt"] = negative_prompt
    run: Any = pipeline
    run.set_progress_bar_config(disable=True)
    try:
        images = run(**arguments, generator=torch.Generator("cpu").manual_seed(seed)).images
    except torch.OutOfMemoryError as error:
        raise GenerateError(f"{what}: out of memory for the first frame; try --low-memory") from error
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise GenerateError(f"{what} can't make the first frame: {error}") from error
    image = images[0].convert("RGB")
    model, revision = origin(pipeline)
    settings = {"model": model, "revision": revision, "pipeline": what, "seed": seed, **arguments}
    sha256 = hashlib.sha256(image.tobytes()).hexdigest()
    return FirstFrame(image=image, settings={**settings, "dtype": dtype_name(pipeline), "image_sha256": sha256})


def save_first_frame(frame: FirstFrame, path: Path) -> Path:
    """Write it as PNG with its settings inside. Raises `OutputError`."""
    text = PngInfo()
    text.add_itxt("settings", strict_json.dump(dict(frame.settings)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.image.save(path, format="PNG", pnginfo=text)
    except OSError as error:
        raise as_output_error(error, path) from error
    return path
