"""From a prompt, a picture or a clip to a clip, with any of diffusers' video pipelines."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modelgrow.surgery import GenerateError

from .arguments import POSITIVE, resolve
from .clip_length import decodable, too_long, trimmed
from .mended import mended
from .parameters import FRAME_COUNTS
from .provenance import describe, dtype_name

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """What to make. None means: as generation.json in the pipeline's folder says, or else the pipeline's default."""

    prompt: str | None = None
    image: str | None = None
    """File of the picture that the clip starts from."""
    last_image: str | None = None
    """File of the picture that it ends with."""
    video: str | None = None
    """File of the clip that is made anew, `strength` deciding how far."""
    strength: float | None = None
    """Above 0 and at most 1, which leaves nothing of the clip."""
    controls: Mapping[str, str] | None = None
    """Files of control clips, by the names in `controls.NAMES`."""
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
    """Ready for JSON. `model` and `revision` are as `load_pipeline` takes them, so None is the foundation, or with
    `runs_in` as `load_alone` does; `frames_sha256` is of the frames as float32 in [0, 1], before they were rounded to
    uint8."""


def generate(
    pipeline: DiffusionPipeline,
    options: GenerateOptions,
    *,
    progress: Progress | None = None,
    video: np.ndarray | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Generated:
    """Run a video pipeline once.

    Args:
        pipeline: From `load_pipeline`, or any other of diffusers' that makes clips from a prompt, a picture or a clip.
        options: What to make.
        progress: Told after each denoising step.
        video: Frames `(T, H, W, 3)`, uint8, in place of those in the file `options.video`, which lost something there.
        extra: More of what the pipeline is called with.

    Raises:
        GenerateError: The pipeline makes no clips, needs what is not given, or can't make what is asked for.
    """
    arguments, fps = resolve(pipeline, options, video, extra or {})
    generator = torch.Generator("cpu").manual_seed(options.seed)
    output = _run(pipeline, {**decodable(pipeline, arguments), "generator": generator}, progress)
    frames = trimmed(pipeline, _to_array(getattr(output, "frames", None), pipeline), arguments)
    if not np.isfinite(frames).all():
        raise GenerateError(
            f"{type(pipeline).__name__} made frames that are not finite numbers in {dtype_name(pipeline)}; "
            "try another dtype: bfloat16 or float32"
        )
    settings = describe(pipeline, options, arguments, frames, fps)
    return Generated(frames=(frames.clip(0, 1) * 255).round().astype(np.uint8), fps=fps, settings=settings)


def _run(pipeline: Any, arguments: Mapping[str, Any], progress: Progress | None) -> Any:
    what = type(pipeline).__name__
    try:
        with mended(pipeline), _reported(pipeline, progress) as callback:
            return pipeline(**arguments, **callback)
    except torch.OutOfMemoryError as error:
        raise GenerateError(
            f"{what}: out of memory. Ask for fewer frames or a smaller size, or keep weights in main memory "
            "with --offload model"
        ) from error
    except (ValueError, RuntimeError, TypeError) as error:
        asked = ", ".join(f"{name} {value}" for name, value in arguments.items() if name in POSITIVE + FRAME_COUNTS)
        longer = "" if "extend-frames" in str(error) else too_long(pipeline, arguments)  # ExVideo's own says it all
        raise GenerateError(f"{what} can't make this ({asked or 'its own defaults'}): {error}{longer}") from error


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
        raise GenerateError(f"{type(pipeline).__name__} makes no clips: its output has no frames")
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
