"""What a clip is made from: a prompt, pictures, a clip, control clips; what a pipeline takes and needs of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import GenerateError

from .controls import as_taken, check_names, control_arguments, parameters_for, size_for
from .inputs import as_pictures, fit, read_image, read_video
from .parameters import frame_count, parameters_of, required

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from PIL import Image

    from .generate import GenerateOptions
    from .parameters import Parameters

INPUTS = ("prompt", "image", "last_image", "video", "controls")
"""The options that say what a clip is made from. All but the prompt are files."""
_PLAIN = ("prompt", "image", "last_image", "video")
"""Those that pipelines call as we do."""


def needs_last(pipeline: Any) -> bool:
    """Whether the model reads the clip's last frame too, as Wan 2.1's for first and last frame."""
    model = getattr(pipeline, "transformer", None)
    both = model is not None and model.config.get("pos_embed_seq_len") is not None
    return both and "last_image" in parameters_of(pipeline)


def check_inputs(pipeline: Any, options: GenerateOptions, extra: Mapping[str, Any]) -> None:
    """All that the pipeline needs is there, and nothing that it does not take.

    Args:
        pipeline: To be called.
        options: What to make.
        extra: More of what it is called with, see `generate`.

    Raises:
        GenerateError: Something is missing, or too much.
    """
    name, parameters = type(pipeline).__name__, parameters_of(pipeline)
    clips = parameters_for(pipeline)
    counted = frame_count(parameters) is not None
    if not any(given in parameters for given in _PLAIN) or not (counted or "video" in parameters or clips):
        raise GenerateError(
            f"{name} makes no clips: it does not take a prompt, a picture or a clip, and a number of frames"
        )
    if options.strength is not None and options.video is None:
        raise GenerateError("strength says how far a clip is made anew; give the clip with --video")
    _check_taken(name, parameters, options)
    _check_controls(pipeline, parameters, options)
    needed = _needed(pipeline, parameters, clips)
    there = {*extra, *(what for what in _PLAIN if getattr(options, what) is not None)}
    there |= {clips[control] for control in options.controls or {}}
    for what in (what for what in needed if what not in there):
        option = next((f"control {ours}=FILE" for ours, theirs in clips.items() if what == theirs), None)
        if option is None and what not in _PLAIN:
            raise GenerateError(f"{name} can't run without {what}, which 'grow generate' has no option for")
        called = what if option is None else next(ours for ours, theirs in clips.items() if what == theirs)
        raise GenerateError(f"{name} can't run without {called}; give one with --{option or _flag(what)}")
    if not needed and not there:
        raise GenerateError(f"{name} starts from a picture; give one with --image or --first-frame-model")


def _needed(pipeline: Any, parameters: Parameters, clips: Mapping[str, str]) -> list[str]:
    """By the pipeline's own names. Many have None as their default, and fail without it all the same."""
    name = type(pipeline).__name__
    needed = [*sorted(required(parameters)), *(["prompt"] if "prompt" in parameters else [])]
    needed += ["video"] if "video" in parameters and "VideoToVideo" in name else []
    needed += ["image"] if "image" in parameters and "ImageToVideo" in name else []
    needed += ["last_image"] if needs_last(pipeline) else []
    if frame_count(parameters) is None and "control_video" in clips:  # its length is the clip's
        needed.append(clips["control_video"])
    return needed


def _check_taken(name: str, parameters: Parameters, options: GenerateOptions) -> None:
    for what in _PLAIN:
        if getattr(options, what) is not None and what not in parameters:
            other = next((name for name in ("image", "video", "prompt") if name in parameters), what)
            how = " (--first-frame-model makes one from the prompt)" if (what, other) == ("prompt", "image") else ""
            raise GenerateError(f"{name} takes no {what}; leave --{_flag(what)} out and give --{other}{how}")
    if options.last_image is not None and options.image is None:
        raise GenerateError("--last-image is what a clip ends with; give what it starts from with --image too")


def _check_controls(pipeline: Any, parameters: Parameters, options: GenerateOptions) -> None:
    given = options.controls or {}
    clips = parameters_for(pipeline)
    check_names(pipeline, given)
    name = type(pipeline).__name__
    kept = clips.get("control_video") == "video"
    if kept and options.video is not None and "control_video" in given:
        raise GenerateError(f"--video and --control control_video are the same for {name}; give one of them")
    whole = options.video is not None or (kept and "control_video" in given)
    if "mask_video" in given and "video" in parameters and not whole:
        how = "--control control_video=FILE" if kept else "--video"
        raise GenerateError(f"{name} keeps what is black in mask_video of another clip; give that one with {how}")


def read_inputs(
    pipeline: Any, options: GenerateOptions, arguments: Mapping[str, Any], video: np.ndarray | None
) -> dict[str, Any]:
    """Prompt, pictures and clips, cropped to the aspect of what will be made, never stretched.

    Args:
        pipeline: To be called.
        options: Whose files are read.
        arguments: What it is called with besides.
        video: Frames `(T, H, W, 3)`, uint8, in place of those in `options.video`.

    Returns:
        Arguments of the pipeline. With control clips its number of frames is among them: as many as was asked for, or
        else as the shortest has, and no more than the pipeline makes by itself.

    Raises:
        GenerateError: A file can't be read, or a control clip is shorter than what was asked for.
    """
    parameters = parameters_of(pipeline)
    sizes = [arguments.get(side, parameters[side].default) for side in ("width", "height") if side in parameters]
    size = (sizes[0], sizes[1]) if len(sizes) == 2 and all(isinstance(side, int) for side in sizes) else None
    inputs: dict[str, Any] = {} if options.prompt is None else {"prompt": options.prompt}
    for name, path in (("image", options.image), ("last_image", options.last_image)):
        if path is not None:
            inputs[name] = fit(read_image(Path(path)), size)
    if options.video is not None:
        frames = read_video(Path(options.video), limit=options.num_frames) if video is None else as_pictures(video)
        inputs["video"] = as_taken(pipeline, "video", [fit(frame, size) for frame in frames])
    if options.controls:
        count = frame_count(parameters)
        limit = options.num_frames or (count and arguments.get(count, parameters[count].default))
        clips = _read_controls(options.controls, options.num_frames, limit if isinstance(limit, int) else None)
        if count is not None:
            inputs[count] = len(next(iter(clips.values())))
        fitted = {
            name: [fit(frame, size_for(pipeline, name, size)) for frame in frames] for name, frames in clips.items()
        }
        inputs |= control_arguments(pipeline, fitted)
    return inputs


def _read_controls(files: Mapping[str, str], asked: int | None, limit: int | None) -> dict[str, list[Image.Image]]:
    """Clips of one length: what was asked for, or else their shortest one's."""
    clips = {name: read_video(Path(file), limit=limit) for name, file in files.items()}
    for name, frames in clips.items():
        if asked is not None and len(frames) < asked:
            raise GenerateError(
                f"{files[name]}: has {len(frames)} frames, and {asked} are to be made by it; "
                f"ask for fewer with --frames {len(frames)}, or leave --frames out"
            )
    shortest = min(map(len, clips.values()))
    return {name: frames[:shortest] for name, frames in clips.items()}


def _flag(option: str) -> str:
    return option.replace("_", "-")
