"""All that `grow generate` does: a first frame, a clip, the clip again at a higher resolution, each to its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import GenerateError
from modelgrow.surgery.staging import check_output

from .alone import load_alone
from .arguments import recommended
from .export import check_target, save_clip
from .first_frame import make_first_frame, save_first_frame
from .generate import Generated, GenerateOptions, Progress, generate
from .inputs import check_readable
from .load import load_pipeline, resolve_device
from .low_memory import offload_for, save_memory
from .memory import watched
from .parameters import parameters_of
from .text.llm import read_with

if TYPE_CHECKING:
    import numpy as np
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from .first_frame import FirstFrame

SECOND_STAGE_STRENGTH = 0.5
"""ExVideo's."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How pipelines are loaded, see `load_pipeline`. `low_memory` chooses the offload itself; the variant is of the
    video model, as other models rarely have the same ones."""

    device: str = "auto"
    dtype: str = "auto"
    variant: str | None = None
    offload: str | None = None
    low_memory: bool = False
    llm: str | None = None
    """Folder or Hub id of the language model that the video model's slot reads with; None is the one it names."""
    pipeline: str | None = None
    """Folder or Hub id of the pipeline that the video model runs in, where that is a component by itself."""
    component: str | None = None
    """What that pipeline calls it, where two of its models have that class."""


@dataclass(frozen=True, kw_only=True)
class Telling:
    """How a long job speaks. The default says nothing."""

    working: Callable[[str], AbstractContextManager[Any]] = lambda what: nullcontext()
    """Shows what goes on, while the context is open."""
    steps: Callable[[str], AbstractContextManager[Progress | None]] = lambda what: nullcontext()
    """Shows how far it is, while the context is open."""
    report: Callable[[str], None] = lambda line: None
    """Says one line."""


@dataclass(frozen=True, kw_only=True)
class Produced:
    """The files, the clip's own first, and the settings of the last clip."""

    files: tuple[Path, ...]
    clip: Generated


def produce(
    model: str | None,
    options: GenerateOptions,
    output: Path,
    *,
    revision: str | None = None,
    loading: Loading | None = None,
    first_frame_model: str | None = None,
    second_stage: tuple[int, int] | None = None,
    enhance: bool = False,
    overwrite: bool = False,
    telling: Telling | None = None,
) -> Produced:
    """Make a clip and write it.

    Args:
        model: The video pipeline, as `load_pipeline` takes it, or with `loading.pipeline` a component by itself.
        options: What to make; of the second stage `strength` too.
        output: The clip's file. The first frame goes beside it as clip.first.png, the second stage's clip as
            clip-1024x1024.mp4.
        revision: Of the model.
        loading: Of all pipelines.
        first_frame_model: Text-to-image pipeline that makes the picture the clip starts from. It is gone from memory
            before the video pipeline is loaded.
        second_stage: Height and width in pixels at which the clip is made anew by the same pipeline.
        enhance: Let the language model of the pipeline's slot write the prompt out first.
        overwrite: Replace files that exist.
        telling: Where progress goes.

    Raises:
        GrowError: Something of it can't be loaded, made or written; what was complete by then stays.
    """
    loading, telling = loading or Loading(), telling or Telling()
    pictures = [Path(path) for path in (options.image, options.last_image) if path is not None]
    clips = [Path(path) for path in (options.video, *(options.controls or {}).values()) if path is not None]
    inputs = [*pictures, *clips]
    second_path = output.with_stem(f"{output.stem}-{second_stage[0]}x{second_stage[1]}") if second_stage else None
    for path in (output, *([second_path] if second_path else [])):
        check_target(path, overwrite=overwrite, inputs=inputs)
    check_readable(pictures, clips)
    files: tuple[Path, ...] = ()
    frame = None
    if first_frame_model is not None:
        first_path = output.with_name(f"{output.stem}.first.png")
        check_output(first_path, inputs=inputs, overwrite=overwrite)
        frame = _first_frame(first_frame_model, options, loading, telling)
        files = (save_first_frame(frame, first_path),)
        options = replace(options, image=str(first_path))
    with telling.working("loading the pipeline"):
        pipeline = _load(model, loading, revision)
        if loading.llm is not None:
            read_with(pipeline, loading.llm)
    if second_stage is not None:
        _check_second_stage(pipeline, second_stage)
    if frame is not None and "prompt" not in parameters_of(pipeline):
        options = replace(options, prompt=None)
    if enhance:
        options = _enhanced(pipeline, options, telling)
    stage = partial(_stage, pipeline, save_memory(pipeline) if loading.low_memory else {}, loading, telling)
    clip = stage("denoising", options if second_stage is None else replace(options, strength=None))
    if loading.llm is not None:
        clip = _with(clip, llm=loading.llm)
    if frame is not None:
        clip = _with(clip, first_frame=dict(frame.settings))
    files = (*save_clip(clip, output, overwrite=overwrite, inputs=inputs), *files)
    if second_stage is not None and second_path is not None:
        again = _second_options(pipeline, options, clip, output, second_stage)
        made = stage("denoising, second stage", again, video=clip.frames)
        clip = _with(made, first_stage=dict(clip.settings))
        files += save_clip(clip, second_path, overwrite=overwrite, inputs=inputs)
    return Produced(files=files, clip=clip)


def _check_second_stage(pipeline: Any, size: tuple[int, int]) -> None:
    """Before the first one takes its time."""
    if not {"video", "strength"} <= set(parameters_of(pipeline)):
        raise GenerateError(f"{type(pipeline).__name__} has no second stage: it takes no video to make anew")
    if hasattr(pipeline, "check_size"):
        pipeline.check_size(*size)


def _stage(
    pipeline: DiffusionPipeline,
    extra: Mapping[str, Any],
    loading: Loading,
    telling: Telling,
    what: str,
    options: GenerateOptions,
    video: np.ndarray | None = None,
) -> Generated:
    watch = watched(pipeline, telling.report) if loading.low_memory else nullcontext()
    with watch, telling.steps(what) as advance:
        return generate(pipeline, options, extra=extra, progress=advance, video=video)


def _load(model: str | None, loading: Loading, revision: str | None = None) -> DiffusionPipeline:
    offload = loading.offload
    if loading.low_memory:
        if offload is not None:
            raise GenerateError("--low-memory chooses the offload itself; leave --offload out")
        offload = offload_for(resolve_device(loading.device))
    options: dict[str, Any] = {
        "device": loading.device,
        "dtype": loading.dtype,
        "variant": loading.variant,
        "revision": revision,
        "offload": offload,
    }
    if loading.pipeline is None:
        if loading.component is not None:
            raise GenerateError("--component says what --pipeline calls the model; there is no --pipeline")
        return load_pipeline(model, **options)
    if model is None:
        raise GenerateError("--pipeline is what a component by itself runs in; name the component with --model")
    made: DiffusionPipeline = load_alone(model, loading.pipeline, component=loading.component, **options)
    return made


def _first_frame(model: str, options: GenerateOptions, loading: Loading, telling: Telling) -> FirstFrame:
    from diffusers.training_utils import free_memory

    if options.image is not None:
        raise GenerateError("the clip starts from one picture: give --image or --first-frame-model, not both")
    if options.prompt is None:
        raise GenerateError("the first frame is made from a prompt; give one with --prompt")
    with telling.working("making the first frame"):
        pipeline = _load(model, replace(loading, variant=None, pipeline=None, component=None))
        if loading.low_memory:
            save_memory(pipeline)
        frame = make_first_frame(pipeline, options.prompt, negative_prompt=options.negative_prompt, seed=options.seed)
        del pipeline
        free_memory()
    return frame


def _enhanced(pipeline: DiffusionPipeline, options: GenerateOptions, telling: Telling) -> GenerateOptions:
    from .text.enhance import enhance_for

    if options.prompt is None:
        raise GenerateError("--enhance writes a prompt out; give one with --prompt")
    with telling.working("writing the prompt out"):
        enhanced = enhance_for(pipeline, options.prompt, seed=options.seed)
    telling.report(f"{enhanced.says}\n{enhanced.text}")
    return replace(options, prompt=enhanced.text)


def _second_options(
    pipeline: DiffusionPipeline, options: GenerateOptions, clip: Generated, output: Path, size: tuple[int, int]
) -> GenerateOptions:
    """As many steps of the first stage's as are left at that strength: 25 of 50, as ExVideo's own script takes."""
    strength = options.strength or SECOND_STAGE_STRENGTH
    default = parameters_of(pipeline)["num_inference_steps"].default
    steps = options.num_inference_steps or recommended(pipeline).get("num_inference_steps", default)
    return replace(
        options,
        video=str(output),
        strength=strength,
        num_frames=len(clip.frames),
        num_inference_steps=max(1, round(steps * strength)),
        height=size[0],
        width=size[1],
    )


def _with(clip: Generated, **more: Any) -> Generated:
    return replace(clip, settings={**clip.settings, **more})
