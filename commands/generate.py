"""`grow generate`: from a prompt to a clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import console, progress, quiet_libraries, slug
from .options import AsJson, Device, Dtype, Overwrite, Revision, Variant

EPILOG = (
    "Examples:\n\n"
    '  [bold]grow generate --prompt "a red circle moves right"[/bold]\n\n'
    '  [bold]grow generate --prompt "a cat on a skateboard" --model ./Wan2.1-T2V-1.3B-Diffusers-suffix8 '
    "--frames 81 -o cat.mp4[/bold]"
)


def generate(
    prompt: Annotated[str, typer.Option(help="What the clip should show.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|HUB_ID",
            help="Any diffusers text-to-video pipeline. Default: the tiny model of moving shapes that comes along.",
            show_default=False,
        ),
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What it should not show.", show_default=False)] = None,
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
        Literal["model", "sequential"] | None,
        typer.Option(help="Keep weights in main memory and move them as they are needed.", show_default=False),
    ] = None,
    variant: Variant = None,
    revision: Revision = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a clip from a prompt; settings and a contact sheet are stored beside it.

    What is not given comes from the model's own generation.json, or else from its pipeline's defaults.
    """
    err = console(stderr=True)
    target = output or Path(f"{slug(prompt)}-{seed}.mp4")
    with err.status("loading torch and diffusers") as status:
        quiet_libraries()
        from modelgrow.pipelines.export import check_target, save_clip
        from modelgrow.pipelines.generate import GenerateOptions
        from modelgrow.pipelines.generate import generate as run
        from modelgrow.pipelines.load import load_pipeline

        check_target(target, overwrite=overwrite)
        status.update("loading the pipeline")
        pipeline = load_pipeline(model, device=device, dtype=dtype, variant=variant, revision=revision, offload=offload)
        if enhance:
            from modelgrow.pipelines.text.enhance import enhance_for

            status.update("writing the prompt out")
            enhanced = enhance_for(pipeline, prompt, seed=seed)
            prompt = enhanced.text
            err.print(f"{enhanced.says}\n{prompt}", markup=False, highlight=False)
    options = GenerateOptions(
        prompt=prompt,
        negative_prompt=negative_prompt,
        num_frames=frames,
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=guidance,
        seed=seed,
        fps=fps,
    )
    with progress("denoising") as advance:
        clip = run(pipeline, options, progress=advance)
    files = save_clip(clip, target, overwrite=overwrite)
    if as_json:
        print(json.dumps({"files": [str(path) for path in files], "settings": dict(clip.settings)}, indent=2))
    else:
        for path in files:
            console().print(str(path), markup=False, highlight=False)
