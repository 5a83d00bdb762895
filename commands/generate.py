"""`grow generate`: from a prompt, a picture or a clip to a clip."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import console, progress, slug
from .options import AsJson, Device, Dtype, Overwrite, Revision, Variant

EPILOG = (
    "Examples:\n\n"
    '  [bold]grow generate --prompt "a red circle moves right"[/bold]\n\n'
    '  [bold]grow generate --prompt "a cat on a skateboard" --model ./Wan2.1-T2V-1.3B-Diffusers-suffix8 '
    "--frames 81 -o cat.mp4[/bold]\n\n"
    "  [bold]grow generate --model ./svd-128f --image cat.png --second-stage 1024x1024 -o cat.mp4[/bold]\n\n"
    '  [bold]grow generate --model ./vace-grown --prompt "a dancer" --control control_video=poses.mp4[/bold]\n\n'
    '  [bold]grow generate --model ./svd-128f --first-frame-model ./HunyuanDiT --prompt "a cat" --low-memory[/bold]\n\n'
    '  [bold]grow generate --model ./run/model --pipeline emilianJR/epiCRealism --prompt "a cat"[/bold]'
)


def generate(
    prompt: Annotated[str | None, typer.Option(help="What the clip should show.", show_default=False)] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|HUB_ID",
            help="Any diffusers video pipeline, or a component by itself with --pipeline. Default: the tiny model of "
            "moving shapes that comes along.",
            show_default=False,
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|HUB_ID",
            help="What a component by itself runs in: a motion adapter's Stable Diffusion, a transformer's own "
            "pipeline.",
            show_default=False,
        ),
    ] = None,
    component: Annotated[
        str | None,
        typer.Option(help="What that pipeline calls it, where two of its models have its class.", show_default=False),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="Picture that the clip starts from, for image-to-video models.", show_default=False),
    ] = None,
    last_image: Annotated[
        Path | None,
        typer.Option(help="Picture that the clip ends with, for models of first and last frame.", show_default=False),
    ] = None,
    first_frame_model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|HUB_ID",
            help="Any diffusers text-to-image pipeline: it makes that picture from the prompt.",
            show_default=False,
        ),
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Clip to make anew, for video-to-video models.", show_default=False)
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Clip that the model reads beside: control_video, mask_video, pose_video, face_video or "
            "background_video. May be given several times.",
            show_default=False,
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="How far it is made anew: 1 leaves nothing of it. Default: the pipeline's.", show_default=False
        ),
    ] = None,
    second_stage: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Make the clip anew at this size with the same model, as ExVideo does (strength 0.5), beside it.",
            show_default=False,
        ),
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What it should not show.", show_default=False)] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|HUB_ID",
            help="Where the slot's language model is. Default: the one that the model names.",
            show_default=False,
        ),
    ] = None,
    enhance: Annotated[
        bool, typer.Option("--enhance", help="Let the slot's language model write the prompt out in detail first.")
    ] = False,
    frames: Annotated[int | None, typer.Option(min=1, help="Length in frames.", show_default=False)] = None,
    height: Annotated[int | None, typer.Option(min=1, help="In pixels.", show_default=False)] = None,
    width: Annotated[int | None, typer.Option(min=1, help="In pixels.", show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.", show_default=False)] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="The same seed and settings give the same clip.")] = 0,
    fps: Annotated[int | None, typer.Option(min=1, help="Frames per second of the file.", show_default=False)] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help=".mp4, .gif or .png (contact sheet). Default: named after the prompt.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    dtype: Annotated[Dtype, typer.Option(help="auto: bfloat16 on a GPU, float32 on a CPU.")] = "auto",
    offload: Annotated[
        Literal["model", "group", "sequential"] | None,
        typer.Option(help="Keep weights in main memory and move them as they are needed.", show_default=False),
    ] = None,
    low_memory: Annotated[
        bool,
        typer.Option(
            "--low-memory",
            help="Slower, in less memory: --offload group on a GPU, layers in pieces, the VAE in tiles. "
            "Tells the peak, predicted and actual.",
        ),
    ] = False,
    variant: Variant = None,
    revision: Revision = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a clip from a prompt, a picture or a clip; settings and a contact sheet are stored beside it.

    What is not given comes from the model's own generation.json, or else from its pipeline's defaults.
    """
    if prompt is None and image is None and video is None and not control:
        raise typer.BadParameter("there is nothing to start from: give --prompt, --image, --video or --control")
    err = console(stderr=True)
    size = None if second_stage is None else parse_size(second_stage)
    controls = parse_controls(control or [])
    source = prompt or next((path.stem for path in (image, video, *controls.values()) if path is not None), "clip")
    with err.status("loading torch and diffusers"):
        from modelgrow.pipelines.quiet import quiet_libraries

        quiet_libraries()
        from modelgrow.pipelines.generate import GenerateOptions
        from modelgrow.pipelines.produce import Loading, Telling, produce

    made = produce(
        model,
        GenerateOptions(
            prompt=prompt,
            image=None if image is None else str(image),
            last_image=None if last_image is None else str(last_image),
            video=None if video is None else str(video),
            controls={name: str(path) for name, path in controls.items()} or None,
            strength=strength,
            negative_prompt=negative_prompt,
            num_frames=frames,
            height=height,
            width=width,
            num_inference_steps=steps,
            guidance_scale=guidance,
            seed=seed,
            fps=fps,
        ),
        output or Path(f"{slug(source)}-{seed}.mp4"),
        revision=revision,
        loading=Loading(
            device=device,
            dtype=dtype,
            variant=variant,
            offload=offload,
            low_memory=low_memory,
            llm=llm,
            pipeline=pipeline,
            component=component,
        ),
        first_frame_model=first_frame_model,
        second_stage=size,
        enhance=enhance,
        overwrite=overwrite,
        telling=Telling(
            working=err.status,
            steps=progress,
            report=lambda line: err.print(line, markup=False, highlight=False),
        ),
    )
    if as_json:
        settings = dict(made.clip.settings)
        print(json.dumps({"files": [str(path) for path in made.files], "settings": settings}, indent=2))
        return
    for path in made.files:
        console().print(str(path), markup=False, highlight=False)


def parse_controls(given: list[str]) -> dict[str, Path]:
    """Files by name, from "pose_video=pose.mp4" and so on."""
    controls: dict[str, Path] = {}
    for text in given:
        name, _, file = text.partition("=")
        if not name or not file:
            raise typer.BadParameter(f"{text!r} is no control clip; expected NAME=FILE, such as pose_video=pose.mp4")
        if name in controls:
            raise typer.BadParameter(f"--control {name} is given twice: {controls[name]} and {file}")
        controls[name] = Path(file)
    return controls


def parse_size(text: str) -> tuple[int, int]:
    """Height and width in pixels, from "1024x768"."""
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size; expected height x width, such as 1024x1024")
    return int(found[1]), int(found[2])
