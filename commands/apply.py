"""`grow apply`: a packed growth back onto its base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .bars import moving_bytes
from .console import console, escape, say_unwritten, say_written
from .jobs import finish
from .options import AsJson, DryRun, Overwrite, Revision, Variant

if TYPE_CHECKING:
    from modelgrow.surgery.unpack import Application

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow apply growth.safetensors --base Wan-AI/Wan2.1-T2V-1.3B-Diffusers -o grown[/bold]\n\n"
    "The folder that comes out is the one that was packed, byte for byte. A base of other weights is refused.\n\n"
    "ExVideo's published weights apply to Stable Video Diffusion likewise:\n\n"
    "  [bold]grow apply exvideo.safetensors --base stabilityai/stable-video-diffusion-img2vid-xt -o exvideo[/bold]"
)


def apply(
    growth: Annotated[
        Path,
        typer.Argument(
            metavar="GROWTH",
            help="What 'grow pack' wrote, growth.safetensors; or ExVideo's weights as published.",
            show_default=False,
        ),
    ],
    base: Annotated[str, typer.Option(metavar="CKPT", help="What it was grown from.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder to write. Default: the base's name and '-grown'.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    variant: Variant = None,
    revision: Revision = None,
) -> None:
    """Put a packed growth onto its base: the grown folder, byte for byte."""
    from modelgrow.surgery import open_source
    from modelgrow.surgery.exvideo_weights import is_exvideo, prepare_weights
    from modelgrow.surgery.packed import read_packed
    from modelgrow.surgery.unpack import execute_apply, prepare_apply

    source = open_source(base, variant=variant, revision=revision)
    target = output or Path(f"{Path(source.name).name}-grown")
    if growth.is_file() and is_exvideo(growth):
        finish(prepare_weights(growth, source), target, dry_run=dry_run, overwrite=overwrite, as_json=as_json)
        return
    application = prepare_apply(read_packed(growth), source)
    if not dry_run:
        with moving_bytes(2 * application.num_bytes) as advance:
            execute_apply(application, target, overwrite=overwrite, progress=advance)
    if as_json:
        print(json.dumps({"output": str(target), **application.to_json()}, indent=2))
        return
    _show(application)
    if dry_run:
        say_unwritten(application.num_bytes, target)
    else:
        say_written(target)


def _show(application: Application) -> None:
    out = console()
    for name, component in application.components.items():
        added, total = len(component.tensors), len(component.expected)
        out.print(
            f"[cyan]{escape(f'{name}: ' if name else '')}{escape(component.class_name)}[/cyan]  "
            f"{added} tensors of the growth, {total - added} of the base",
            highlight=False,
        )
    for note in application.notes:
        out.print(f"  {escape(note)}", style="yellow", highlight=False, soft_wrap=True)
