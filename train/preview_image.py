"""What preview clips are made from besides prompts, where the model needs it.

A picture, the user's or a clip's own first frame, and that clip's control clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from modelgrow.pipelines.given import needs_last
from modelgrow.pipelines.inputs import read_image
from modelgrow.pipelines.parameters import parameters_of, required
from modelgrow.surgery import TrainError

from .batch import generator_of
from .data.encode import read_controls
from .families.family import controls_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from .data.buckets import Bucket
    from .data.clip import Clip
    from .settings import Settings
    from .setup import Run

IMAGE_NAME = "image.png"
LAST_NAME = "last_image"
"""What pipelines call the picture that a clip ends with."""
_FPS = 16
"""Of clips that do not say."""


def check_image(settings: Settings) -> None:
    """Raises `GenerateError` or `TrainError` if there is no picture to be read where the settings name one."""
    if settings.preview_image is None:
        return
    if not settings.preview_every:
        raise TrainError("preview_image without previews: say how often with preview_every")
    read_image(Path(settings.preview_image))


def needs_image(pipeline: Any) -> bool:
    """Whether a pipeline makes no clip without a picture. Many have None as their default, and fail all the same."""
    parameters = parameters_of(pipeline)
    if "image" not in parameters:
        return False
    named = any(kind in type(pipeline).__name__ for kind in ("ImageToVideo", "VideoToWorld"))
    return named or "prompt" not in parameters or "image" in required(parameters)


@dataclass(frozen=True, kw_only=True)
class PreviewControls:
    """A clip's control clips by name, `(T, H, W, 3)` uint8, and the size of the clip that is made from them.

    `fps`: of the files that show them.
    """

    frames: Mapping[str, np.ndarray]
    fps: int
    num_frames: int
    height: int
    width: int

    @property
    def shown(self) -> dict[str, np.ndarray]:
        """Those that are as large as the clip, so that they fit on its contact sheet."""
        return {name: frames for name, frames in self.frames.items() if frames.shape[1:3] == (self.height, self.width)}


def preview_controls(run: Run) -> PreviewControls | None:
    """Of the clip that `preview_images` takes its picture from; None where the model reads none, or the data have none.

    Raises:
        DataError: They can't be decoded.
    """
    clip, bucket = _chosen(run)
    if not clip.controls:
        return None
    sizes = {name: control.size for name, control in controls_of(run.family, run.pipeline).items()}
    return PreviewControls(
        frames=read_controls(run.clips, clip, bucket, sizes),
        fps=max(1, round(clip.fps or _FPS)),
        num_frames=bucket.num_frames,
        height=bucket.height,
        width=bucket.width,
    )


def preview_images(run: Run) -> list[Image.Image]:
    """None, one, or the first and the last picture of a preview clip.

    A held-out clip's, if there is one; which one follows from the seed. A picture of the user's is its last one too.

    Raises:
        GrowError: The picture, or the clip, can't be read.
    """
    given, last = run.settings.preview_image, needs_last(run.pipeline)
    if given is not None:
        return [read_image(Path(given))] * (2 if last else 1)
    if not needs_image(run.pipeline):
        return []
    frames = _frames(run)
    return [Image.fromarray(frames[place]) for place in ([0, -1] if last else [0])]


def _frames(run: Run) -> np.ndarray:
    """(T, H, W, 3) uint8, of a clip of the run's at its bucket's size."""
    clip, bucket = _chosen(run)
    return run.clips.read(clip, num_frames=bucket.num_frames, height=bucket.height, width=bucket.width)


def _chosen(run: Run) -> tuple[Clip, Bucket]:
    """The clip that previews are made from: one that is held out, if any is."""
    buckets = run.held_out or run.cache.buckets
    pairs = [(bucket, number) for bucket in buckets for number in bucket.clips]
    chosen = torch.randint(len(pairs), (1,), generator=generator_of(run.settings.seed, "preview image"))
    bucket, number = pairs[int(chosen)]
    key = run.cache.keys[number]
    return next(clip for clip in run.clips.clips if clip.key == key), bucket
