"""`grow remap-lora`: a LoRA of the base, for the grown model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import console, escape, print_json
from .groups import Opening, Saving, grouped
from .options import AnatomyFiles, Components, Revision
from .sources import look_at

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow remap-lora lora.safetensors --model ./CogVideoX-2b-insert30 -o lora-for-grown.safetensors[/bold]\n\n"
    "After --mode suffix block numbers are as before and nothing moves. In a diffusers script, without a file:\n\n"
    "  from modelgrow.pipelines import load_lora\n\n"
    '  load_lora(pipeline, "lora.safetensors")\n\n'
    "A LoRA in DiffSynth's names, such as ExVideo's for CogVideoX, gets diffusers' names, for a model that has not "
    "grown too.\n\n"
    "That also reads LoRAs in a model's original layout or kohya's, of which diffusers converts some only while no "
    "block is left out; this command moves their keys and leaves them as they are written."
)


@grouped
def remap_lora(
    lora: Annotated[Path, typer.Argument(metavar="LORA", help="A LoRA of the base, .safetensors.", show_default=False)],
    model: Annotated[str, typer.Option(metavar="GROWN", help="The grown model.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: NAME-grown.safetensors.", show_default=False),
    ] = None,
    component: Components = None,
    anatomy: AnatomyFiles = None,
    *,
    saving: Saving,
    revision: Revision = None,
) -> None:
    """Move the block numbers in a LoRA's keys, so that a LoRA of the base still applies to the grown model."""
    from modelgrow.surgery import anatomies
    from modelgrow.surgery.lora import classes_of, grown_models, is_foreign, prepare_remap, write_remapped

    source = look_at(model, Opening(revision=revision))
    known = anatomies(tuple(anatomy or ()))
    models = grown_models(source, component or (), known, may_be_none=is_foreign(lora))
    remapping = prepare_remap(lora, models, classes=classes_of(source))
    target = output or Path(f"{lora.stem}-grown.safetensors")
    if not saving.dry_run:
        write_remapped(remapping, target, overwrite=saving.overwrite)
    if saving.as_json:
        print_json(target, remapping.to_json())
        return
    out = console()
    if saving.dry_run:
        for key, name in remapping.moved.items():
            out.print(f"{key} -> {name}", markup=False, highlight=False, soft_wrap=True)
    count = f"{len(remapping.moved)} of {len(remapping.names)} keys"
    if saving.dry_run:
        out.print(f"would move {count}. [bold]Nothing was written.[/bold]", highlight=False)
    else:
        count += "" if remapping.moved else ", which fit as they are"
        out.print(f"moved {count}; written: [bold]{escape(str(target))}[/bold]", highlight=False, soft_wrap=True)
