"""As many frames as were asked for, from a VAE that decodes only some lengths: a few more are made and dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import anatomies
from modelgrow.surgery.grown import stock_name

from .parameters import FRAME_COUNTS

if TYPE_CHECKING:
    import numpy as np
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline


def decodable(pipeline: DiffusionPipeline, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with the shortest length that the VAE decodes and that has all frames that are asked for."""
    found = dict(arguments)
    for name in FRAME_COUNTS:
        if type(found.get(name)) is int:
            found[name] = decodable_length(pipeline, found[name])
    return found


def decodable_length(pipeline: DiffusionPipeline, num_frames: int) -> int:
    """By what the denoiser's anatomy and its VAE's config say; the same number where it has none."""
    for component in pipeline.components.values():
        anatomy = anatomies().get(stock_name(type(component).__name__))
        if anatomy is not None and anatomy.frames.kind not in ("", "none"):
            vae = getattr(pipeline.components.get("vae"), "config", {})
            return anatomy.frames_of(component.config).decoded_by(vae).fit(num_frames)
    return num_frames


def trimmed(frames: np.ndarray, arguments: Mapping[str, Any]) -> np.ndarray:
    """(T, H, W, 3) without the frames beyond those that were asked for."""
    asked = next((arguments[name] for name in FRAME_COUNTS if type(arguments.get(name)) is int), None)
    return frames if asked is None else frames[:asked]
