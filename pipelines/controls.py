"""Control clips: what a model reads beside the clip that it makes, by the names that data and commands give them.

Pipelines have names of their own for some of them, and kinds: most take pictures, EasyAnimate's tensors.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import GenerateError
from modelgrow.surgery.grown import stock_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from PIL import Image

NAMES = ("background_video", "control_video", "face_video", "mask_video", "pose_video")
"""Sorted."""
TRANSFER = "Cosmos2_5_TransferPipeline"
PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "WanVACEPipeline": {"control_video": "video", "mask_video": "mask"},
    TRANSFER: {"control_video": "controls"},
}
"""What pipelines call those that they have another name for; the others call them as we do."""
THEIRS = (*NAMES, "mask", "controls")
"""All names of parameters that take nothing but control clips."""
_WHITE = 127.5


def parameters_for(pipeline: Any) -> dict[str, str]:
    """Which control clips a pipeline takes, by our names, and what it calls them."""
    cls = type(pipeline)
    named = PARAMETERS.get(stock_name(cls.__name__))
    there = inspect.signature(cls.__call__).parameters
    return dict(named) if named is not None else {name: name for name in NAMES if name in there}


def control_arguments(pipeline: Any, clips: Mapping[str, Sequence[Image.Image]]) -> dict[str, Any]:
    """What a pipeline is called with for control clips, by our names.

    Raises:
        GenerateError: It takes no control clip of that name.
    """
    names = parameters_for(pipeline)
    what = type(pipeline).__name__
    for name in clips:
        if name not in names:
            raise GenerateError(
                f"{what} takes no {name}; its control clips are {' and '.join(sorted(names))}"
                if names
                else f"{what} takes no control clips, so no {name} either"
            )
    arguments: dict[str, Any] = {names[name]: as_taken(pipeline, name, pictures) for name, pictures in clips.items()}
    if stock_name(what) == "WanAnimatePipeline" and {"background_video", "mask_video"} <= set(clips):
        arguments["mode"] = "replace"
    if stock_name(what) == TRANSFER and clips:
        arguments["num_frames_per_chunk"] = min(longest_chunk(pipeline), *map(len, clips.values()))
    return arguments


def longest_chunk(pipeline: Any) -> int:
    """Frames that Cosmos Transfer makes at once at most. By itself it makes 93, however short the clip.

    Its limit is the model's number of positions along the longest side, against which it holds frames in pixels.
    """
    config, factor = pipeline.transformer.config, pipeline.vae_scale_factor_temporal
    positions = max(size // patch for size, patch in zip(config.max_size, config.patch_size, strict=True))
    return int((positions - 1) // factor * factor + 1)


def as_taken(pipeline: Any, name: str, pictures: Sequence[Image.Image]) -> list[Image.Image] | torch.Tensor:
    """A clip as a pipeline takes it: a list of pictures; of EasyAnimate's (1, C, T, H, W) float32, of three channels in
    [0, 1], or of one, 0 and 255, for a mask."""
    if not stock_name(type(pipeline).__name__).startswith("EasyAnimate"):
        return list(pictures)
    import numpy as np
    import torch

    if name == "mask_video":
        gray = np.stack([np.asarray(picture.convert("L")) for picture in pictures])
        return torch.tensor((gray > _WHITE) * 255.0, dtype=torch.float32)[None, None]
    frames = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.tensor(frames).permute(3, 0, 1, 2)[None].float() / 255
