"""`grow pack`: a growth alone, as one small file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .bars import moving_bytes
from .console import console, escape, print_json, say_unwritten, say_written, size
from .groups import Opening, Saving, grouped
from .options import Components, Revision
from .sources import fetched, look_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelgrow.surgery import Source
    from modelgrow.surgery.pack import Packing

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow pack ./Wan2.1-T2V-1.3B-Diffusers-suffix8 -o growth.safetensors[/bold]\n\n"
    "  [bold]grow pack ./grown -o to-upload/ --base-model Wan-AI/Wan2.1-T2V-1.3B-Diffusers[/bold]\n\n"
    "Back again with [bold]grow apply[/bold], or in a diffusers script:\n\n"
    "  from modelgrow.pipelines import load_growth\n\n"
    '  pipeline = load_growth(pipeline, "growth.safetensors")'
)


@grouped
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
    *,
    saving: Saving,
    revision: Revision = None,
) -> None:
    """Pack a growth alone: what the grown model has and its base has not, in one small file."""
    from modelgrow.surgery.pack import prepare_pack, write_pack
    from modelgrow.surgery.staging import check_output

    opening = Opening(revision=revision)
    source = look_at(grown, opening)
    if file_format == "diffsynth":
        _export(source, grown, opening, component or (), output, saving)
        return
    other = look_at(base, Opening()) if base else None
    prepare = partial(prepare_pack, components=component or (), base_model=base_model)
    packing = prepare(source, base=other)
    target = output or Path(f"{Path(source.name).name}-growth")
    if saving.dry_run:
        _show(packing, target, (), saving)
        return
    if packing.missing or packing.base_missing:
        check_output(target, inputs=[source.path], overwrite=saving.overwrite)
        source = fetched(grown, opening, source, packing.missing)
        other = fetched(base, Opening(), other, packing.base_missing) if base and other else None
        packing = prepare(source, base=other)
    with moving_bytes(2 * packing.file.num_bytes) as advance:
        files = write_pack(packing, target, overwrite=saving.overwrite, progress=advance)
    _show(packing, target, files, saving)


def _export(
    source: Source, grown: str, opening: Opening, components: Sequence[str], output: Path | None, saving: Saving
) -> None:
    from modelgrow.surgery.exvideo_weights import prepare_export, write_export

    export = prepare_export(source, components=components)
    target = output or Path(f"{Path(source.name).name}-exvideo.safetensors")
    download = sum(export.missing.values())
    if not saving.dry_run:
        export.check_output(target, overwrite=saving.overwrite)
        export = prepare_export(fetched(grown, opening, source, export.missing), components=components)
        with moving_bytes(2 * export.file.num_bytes) as advance:
            write_export(export, target, overwrite=saving.overwrite, progress=advance)
    if saving.as_json:
        print_json(target, export.to_json(), download=download if saving.dry_run else None)
        return
    what = f"{len(export.tensors)} tensors for {export.num_frames} frames, {size(export.file.num_bytes)}"
    console().print(what, highlight=False)
    if saving.dry_run:
        say_unwritten(export.file.num_bytes, target, download=download)
    else:
        say_written(target)


def _show(packing: Packing, target: Path, files: Sequence[Path], saving: Saving) -> None:
    from modelgrow.surgery.pack import CARD_NAME

    download = sum(packing.missing.values()) + sum(packing.base_missing.values())
    if saving.as_json:
        about = {"files": [str(path) for path in files], **packing.to_json()}
        print_json(target, about, download=download if saving.dry_run else None)
        return
    _show_components(packing)
    if saving.dry_run:
        say_unwritten(packing.file.num_bytes, target, download=download)
    for path in files:
        say_written(path)
    if files and (card := files[0].with_name(CARD_NAME)) not in files:
        console().print(f"{escape(str(card))} is there already: no card was written", highlight=False, soft_wrap=True)


def _show_components(packing: Packing) -> None:
    for name, keys in packing.packed.items():
        checkpoint = packing.checkpoints[name]
        num_bytes = sum(checkpoint.tensors[key].nbytes for key in keys)
        console().print(
            f"[cyan]{escape(f'{name}: ' if name else '')}{checkpoint.class_name}[/cyan]  {len(keys)} tensors, "
            f"{size(num_bytes)}; the other {len(checkpoint.tensors) - len(keys)} are the base's",
            highlight=False,
        )
    for note in packing.notes:
        console().print(f"  {escape(note)}", style="yellow", highlight=False, soft_wrap=True)
