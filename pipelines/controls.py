"""Control clips: what a model reads beside the clip that it makes, by the names that data and commands give them.

Pipelines have names of their own for some of them, and kinds: most take pictures, EasyAnimate's tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelgrow.surgery import GenerateError
from modelgrow.surgery.grown import stock_name

from .parameters import parameters_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import torch
    from PIL import Image

NAMES = ("background_video", "control_video", "face_video", "mask_video", "pose_video")
"""Sorted."""
ANIMATE = "WanAnimatePipeline"
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
    named = PARAMETERS.get(stock_name(type(pipeline).__name__))
    return dict(named) if named is not None else {name: name for name in NAMES if name in parameters_of(pipeline)}


def check_names(pipeline: Any, names: Iterable[str]) -> None:
    """Raises `GenerateError` if the pipeline takes no control clip of one of these names."""
    known, what = parameters_for(pipeline), type(pipeline).__name__
    for name in names:
        if not known:
            raise GenerateError(f"{what} takes no control clips; leave --control {name} out")
        if name not in known:
            raise GenerateError(f"{what} takes no {name!r}; its control clips are {' and '.join(sorted(known))}")


def size_for(pipeline: Any, name: str, size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Width and height that a control clip is brought to; None leaves it as it is. `size`: of what is made."""
    if name != "face_video":
        return size
    side = int(pipeline.transformer.config.motion_encoder_size)
    return side, side


def control_arguments(pipeline: Any, clips: Mapping[str, Sequence[Image.Image]]) -> dict[str, Any]:
    """What a pipeline is called with for control clips, by our names.

    Raises:
        GenerateError: It takes no control clip of that name.
    """
    check_names(pipeline, clips)
    names, what = parameters_for(pipeline), type(pipeline).__name__
    arguments: dict[str, Any] = {names[name]: as_taken(pipeline, name, pictures) for name, pictures in clips.items()}
    if stock_name(what) == ANIMATE and {"background_video", "mask_video"} <= set(clips):
        arguments["mode"] = "replace"
    if stock_name(what) == ANIMATE and "pose_video" in clips:
        arguments["segment_frame_length"] = _segment(pipeline, len(clips["pose_video"]))
    if stock_name(what) == TRANSFER and clips:
        arguments["num_frames_per_chunk"] = _chunk(pipeline, min(map(len, clips.values())))
    return arguments


def _segment(pipeline: Any, num_frames: int) -> int:
    """Frames that Wan Animate makes at once: no more of them than there are poses, which by itself it makes more of."""
    factor, longest = pipeline.vae_scale_factor_temporal, parameters_of(pipeline)["segment_frame_length"].default
    return int(min(longest, max(1, -(-(num_frames - 1) // factor)) * factor + 1))


def _chunk(pipeline: Any, num_frames: int) -> int:
    """Frames that Cosmos Transfer makes at once: no more than the control clip has, which by itself it makes more of.

    It takes no more than the model has positions along its longest side, against which it holds frames in pixels.
    """
    config, factor = pipeline.transformer.config, pipeline.vae_scale_factor_temporal
    positions = max(size // patch for size, patch in zip(config.max_size, config.patch_size, strict=True))
    longest = min(parameters_of(pipeline)["num_frames_per_chunk"].default, positions)
    return int(min((longest - 1) // factor, max(1, -(-(num_frames - 1) // factor))) * factor + 1)


def clips_in(pipeline: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that stand beside what is made, frame by frame: control clips, and what a mask is of."""
    names = {*parameters_for(pipeline).values(), *(["video"] if _takes_tensors(pipeline) else [])}
    return {name: arguments[name] for name in sorted(names & set(arguments))}


def length_of(clip: list[Image.Image] | torch.Tensor) -> int:
    """Frames of a clip as a pipeline takes it."""
    return len(clip) if isinstance(clip, list) else clip.shape[2]


def lengthened(clip: list[Image.Image] | torch.Tensor, num_frames: int) -> list[Image.Image] | torch.Tensor:
    """A clip as a pipeline takes it, at least that long: its last frame stands still."""
    missing = max(0, num_frames - length_of(clip))
    if isinstance(clip, list):
        return clip + clip[-1:] * missing
    return clip[:, :, [*range(clip.shape[2]), *[-1] * missing]]


def _takes_tensors(pipeline: Any) -> bool:
    return stock_name(type(pipeline).__name__).startswith("EasyAnimate")


def as_taken(pipeline: Any, name: str, pictures: Sequence[Image.Image]) -> list[Image.Image] | torch.Tensor:
    """A clip as a pipeline takes it: a list of pictures; of EasyAnimate's (1, C, T, H, W) float32, of three channels in
    [0, 1], or of one, 0 and 255, for a mask."""
    if not _takes_tensors(pipeline):
        return list(pictures)
    import numpy as np
    import torch

    if name == "mask_video":
        gray = np.stack([np.asarray(picture.convert("L")) for picture in pictures])
        return torch.tensor((gray > _WHITE) * 255.0, dtype=torch.float32)[None, None]
    frames = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.tensor(frames).permute(3, 0, 1, 2)[None].float() / 255
