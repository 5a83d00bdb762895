"""What `ExVideoPipeline` can be called with, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import GenerateError

if TYPE_CHECKING:
    from .pipeline import ExVideoPipeline


def check_call(
    pipeline: ExVideoPipeline,
    *,
    image: Any,
    video: Any,
    pinned_frames: Mapping[int, Any],
    size: tuple[int, int],
    num_frames: int,
    strength: float,
) -> None:
    """Raises `GenerateError` in words that say what to ask for instead.

    Args:
        pipeline: Its UNet's config says how many frames it has positions for; SVD's own has no bound.
        image: The first frame.
        video: The clip to start from.
        pinned_frames: Pictures by number of frame.
        size: Height and width in pixels.
        num_frames: Asked for, or what follows from the rest.
        strength: Of a clip that is made anew.
    """
    config = pipeline.unet.config
    if image is None and video is None:
        raise GenerateError("there is no image to start from: give image, or a video to make anew")
    if video is not None and not 0 < strength <= 1:
        raise GenerateError(f"strength is {strength}; it must be above 0 and at most 1")
    pipeline.check_size(*size)
    rows = config.get("num_position_frames")
    if rows is not None and num_frames > rows:
        raise GenerateError(
            f"num_frames is {num_frames}, and this model's position tables have {rows} rows. Ask for {rows} frames at "
            f"most, or make the tables longer with 'grow extend-frames --to {num_frames}'"
        )
    if num_frames < (1 if rows is None else 2):
        raise GenerateError(f"num_frames is {num_frames}; ExVideo's convolution over time needs two at least")
    if video is not None and len(video) < num_frames:
        raise GenerateError(f"num_frames is {num_frames}, and the video has {len(video)}; ask for no more than it has")
    beyond = [number for number in pinned_frames if not 0 <= number < num_frames]
    if beyond:
        raise GenerateError(f"frame {beyond[0]} is pinned, and the clip has frames 0 to {num_frames - 1}")


def check_side(name: str, side: int, grain: int) -> None:
    """Whole values at the UNet's deepest level, two of them at least: a reflecting convolution needs a neighbor.

    `grain` is how many pixels one value there stands for.
    """
    if side >= 2 * grain and side % grain == 0:
        return
    below = max(2 * grain, side // grain * grain)
    choice = f"{below} or {below + grain}" if side > below else str(below)
    raise GenerateError(
        f"{name} is {side} pixels; this model makes multiples of {grain} from {2 * grain} on. Ask for {choice}"
    )
