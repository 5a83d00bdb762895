"""As many frames as were asked for, from a VAE that decodes only some lengths: a few more are made and dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import anatomies
from modelgrow.surgery.grown import stock_name

from .controls import clips_in, length_of, lengthened, parameters_for
from .parameters import FRAME_COUNTS, frame_count, parameters_of

if TYPE_CHECKING:
    import numpy as np
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from modelgrow.surgery.positions import Frames


def decodable(pipeline: DiffusionPipeline, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with the shortest length that the VAE decodes and that has all frames that are asked for.

    Control clips are as long as what is made: their last frame stands still.
    """
    asked = _asked(pipeline, arguments)
    if asked is None:
        return dict(arguments)
    made = decodable_length(pipeline, asked)
    counts = {name: made for name in FRAME_COUNTS if type(arguments.get(name)) is int}
    clips = {name: lengthened(clip, made) for name, clip in clips_in(pipeline, arguments).items()}
    return {**arguments, **counts, **clips}


def decodable_length(pipeline: DiffusionPipeline, num_frames: int) -> int:
    """By what the denoiser's anatomy and its VAE's config say; the same number where it has none."""
    found = _positions(pipeline)
    return num_frames if found is None else found[0].fit(num_frames)


def too_long(pipeline: DiffusionPipeline, arguments: Mapping[str, Any]) -> str:
    """What to do where more frames are asked for than the denoiser has positions for; nothing where that is not so."""
    found, asked = _positions(pipeline), _asked(pipeline, arguments)
    if found is None or asked is None:
        return ""
    frames, config = found
    limit = config.get(frames.limit_key or "")
    most = limit[0] if isinstance(limit, list | tuple) and limit else limit
    if type(most) is not int or asked <= frames.pixels(most):
        return ""
    return f". It has positions for {frames.pixels(most)} frames; 'grow extend-frames --to {asked}' gives it more"


def _positions(pipeline: DiffusionPipeline) -> tuple[Frames, Mapping[str, Any]] | None:
    """What bounds the length of a clip in the pipeline's denoiser, and that one's config."""
    for component in pipeline.components.values():
        anatomy = anatomies().get(stock_name(type(component).__name__))
        if anatomy is not None and anatomy.frames.kind not in ("", "none"):
            vae = getattr(pipeline.components.get("vae"), "config", {})
            return anatomy.frames_of(component.config).decoded_by(vae), component.config
    return None


def trimmed(pipeline: DiffusionPipeline, frames: np.ndarray, arguments: Mapping[str, Any]) -> np.ndarray:
    """(T, H, W, 3) without the frames beyond those that were asked for."""
    return frames[: _asked(pipeline, arguments)]


def _asked(pipeline: DiffusionPipeline, arguments: Mapping[str, Any]) -> int | None:
    """The number of frames, which some pipelines take from a control clip."""
    asked = next((arguments[name] for name in FRAME_COUNTS if type(arguments.get(name)) is int), None)
    clip = arguments.get(parameters_for(pipeline).get("control_video", ""))
    if asked is None and clip is not None and frame_count(parameters_of(pipeline)) is None:
        return length_of(clip)
    return asked
