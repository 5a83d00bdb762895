"""`grow pack`: a growth alone, as one small file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .bars import moving_bytes
from .console import console, escape, say_unwritten, say_written, size
from .options import AsJson, Components, DryRun, Overwrite, Revision

if TYPE_CHECKING:
    from modelgrow.surgery.exvideo_weights import Export
    from modelgrow.surgery.pack import Packing

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow pack ./Wan2.1-T2V-1.3B-suffix8 -o growth.safetensors[/bold]\n\n"
    "  [bold]grow pack ./grown -o to-upload/ --base-model Wan-AI/Wan2.1-T2V-1.3B-Diffusers[/bold]\n\n"
    "Back again with [bold]grow apply[/bold], or in a diffusers script:\n\n"
    "  from modelgrow.pipelines import load_growth\n\n"
    '  pipeline = load_growth(pipeline, "growth.safetensors")'
)


def pack(
    grown: Annotated[
        str, typer.Argument(metavar="GROWN", help="A grown model, with its growth.json.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="NAME.safetensors, or a folder to make, ready to upload. README.md, a model card, comes with it "
            "unless there is one. Default: the folder NAME-growth.",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="CKPT",
            help="What it was grown from: compare every tensor with it, and pack those of its own that were "
            "trained since.",
            show_default=False,
        ),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(metavar="HUB_ID", help="The base's Hub id, for the model card.", show_default=False)
    ] = None,
    file_format: Annotated[
        Literal["modelgrow", "diffsynth"],
        typer.Option(
            "--format",
            help="diffsynth: ExVideo's tensors under the names of DiffSynth-Studio, as its own weights were published.",
        ),
    ] = "modelgrow",
    component: Components = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    revision: Revision = None,
) -> None:
    """Pack a growth alone: what the grown model has and its base has not, in one small file."""
    from modelgrow.surgery import open_source
    from modelgrow.surgery.exvideo_weights import prepare_export
    from modelgrow.surgery.pack import prepare_pack, write_pack

    source = open_source(grown, revision=revision)
    if file_format == "diffsynth":
        _export(prepare_export(source, components=component or ()), output, dry_run, overwrite, as_json)
        return
    packing = prepare_pack(
        source, base=open_source(base) if base else None, components=component or (), base_model=base_model
    )
    target = output or Path(f"{Path(source.name).name}-growth")
    files: tuple[Path, ...] = ()
    if not dry_run:
        with moving_bytes(2 * packing.file.num_bytes) as advance:
            files = write_pack(packing, target, overwrite=overwrite, progress=advance)
    if as_json:
        print(
            json.dumps({"output": str(target), "files": [str(path) for path in files], **packing.to_json()}, indent=2)
        )
        return
    _show(packing)
    if dry_run:
        say_unwritten(packing.file.num_bytes, target)
    for path in files:
        say_written(path)


def _export(export: Export, output: Path | None, dry_run: bool, overwrite: bool, as_json: bool) -> None:
    from modelgrow.surgery.exvideo_weights import write_export

    target = output or Path(f"{Path(export.source.name).name}-exvideo.safetensors")
    if not dry_run:
        with moving_bytes(2 * export.file.num_bytes) as advance:
            write_export(export, target, overwrite=overwrite, progress=advance)
    if as_json:
        print(json.dumps({"output": str(target), **export.to_json()}, indent=2))
        return
    what = f"{len(export.tensors)} tensors for {export.num_frames} frames, {size(export.file.num_bytes)}"
    done = "would write" if dry_run else "written:"
    console().print(f"{done} [bold]{escape(str(target))}[/bold]  {what}", highlight=False, soft_wrap=True)


def _show(packing: Packing) -> None:
    for name, keys in packing.packed.items():
        checkpoint = packing.checkpoints[name]
        num_bytes = sum(checkpoint.tensors[key].nbytes for key in keys)
        console().print(
            f"[cyan]{escape(f'{name}: ' if name else '')}{checkpoint.class_name}[/cyan]  {len(keys)} tensors, "
            f"{size(num_bytes)}; the other {len(checkpoint.tensors) - len(keys)} are the base's",
            highlight=False,
        )
