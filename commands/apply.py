"""`grow apply`: a packed growth back onto its base."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .bars import moving_bytes
from .console import console, escape, print_json, say_unwritten, say_written
from .groups import Opening, Saving, Writing, grouped
from .jobs import carry_out
from .options import Revision, Variant
from .sources import fetched, look_at

if TYPE_CHECKING:
    from modelgrow.surgery import Source
    from modelgrow.surgery.unpack import Application

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow apply growth.safetensors --base Wan-AI/Wan2.1-T2V-1.3B-Diffusers -o grown[/bold]\n\n"
    "The folder that comes out is the one that was packed, byte for byte; cards, README.md, are the base's. "
    "A base of other weights is refused.\n\n"
    "ExVideo's published weights apply to Stable Video Diffusion likewise:\n\n"
    "  [bold]grow apply exvideo.safetensors --base stabilityai/stable-video-diffusion-img2vid-xt -o exvideo[/bold]"
)


@grouped
def apply(
    growth: Annotated[
        str,
        typer.Argument(
            metavar="GROWTH",
            help="What 'grow pack' wrote: growth.safetensors, its folder, or a Hub id of that; or ExVideo's weights as "
            "published.",
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
    *,
    saving: Saving,
    variant: Variant = None,
    revision: Revision = None,
) -> None:
    """Put a packed growth onto its base: the grown folder, byte for byte."""
    from modelgrow.surgery.exvideo_weights import is_exvideo, prepare_weights
    from modelgrow.surgery.growth_file import find_growth
    from modelgrow.surgery.packed import read_packed
    from modelgrow.surgery.staging import check_output
    from modelgrow.surgery.unpack import execute_apply, prepare_apply

    opening = Opening(variant=variant, revision=revision)
    path = find_growth(growth)
    if is_exvideo(path):
        writing = Writing(output=output, **asdict(saving))
        carry_out(
            base,
            lambda source, _: prepare_weights(path, source),
            opening,
            writing,
            name=lambda job: _target(job.source),
        )
        return
    packed = read_packed(path)
    source = look_at(base, opening)
    target = output or _target(source)
    application = prepare_apply(packed, source)
    if saving.dry_run:
        _show(application, target, saving)
        return
    if application.missing:
        check_output(target, inputs=[source.path, path], overwrite=saving.overwrite)
        application = prepare_apply(packed, fetched(base, opening, source, application.missing))
    with moving_bytes(2 * application.num_bytes) as advance:
        execute_apply(application, target, overwrite=saving.overwrite, progress=advance)
    _show(application, target, saving)


def _target(base: Source) -> Path:
    return Path(f"{Path(base.name).name}-grown")


def _show(application: Application, target: Path, saving: Saving) -> None:
    download = sum(application.missing.values())
    if saving.as_json:
        print_json(target, application.to_json(), download=download if saving.dry_run else None)
        return
    _show_components(application)
    if saving.dry_run:
        say_unwritten(application.num_bytes, target, download=download)
    else:
        say_written(target)


def _show_components(application: Application) -> None:
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
