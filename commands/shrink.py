"""`grow shrink`: take the last step back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .console import console, escape, say_written
from .jobs import finish
from .options import AsJson, Components, Config, DryRun, Output, Overwrite, Revision, Variant

if TYPE_CHECKING:
    from pathlib import Path

    from modelgrow.surgery import Job

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow shrink ./CogVideoX-2b-insert30 -o ./CogVideoX-2b-again[/bold]\n\n"
    "  [bold]grow shrink ./Wan2.2-T2V-A14B-suffix10 --component transformer --dry-run[/bold]\n\n"
    "What the step only carried over comes back as it is now: byte for byte the base's, unless it was trained since."
)


def shrink(
    grown: Annotated[
        str, typer.Argument(metavar="GROWN", help="A grown model, with its growth.json.", show_default=False)
    ],
    component: Components = None,
    output: Output = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    config: Config = None,
    variant: Variant = None,
    revision: Revision = None,
) -> None:
    """Take a model's last growth back: the tensors, the config and the record that it had before."""
    from modelgrow.surgery import open_source
    from modelgrow.surgery.shrink import prepare_shrink

    source = open_source(grown, config=config, variant=variant, revision=revision)
    job = prepare_shrink(source, components=component or ())
    finish(job, output, dry_run=dry_run, overwrite=overwrite, as_json=as_json, show=_show)


def _show(job: Job, output: Path) -> None:
    out = console()
    for name, plan in job.plans.items():
        for note in plan.notes:
            out.print(f"{name + ': ' if name else ''}{escape(note)}", highlight=False, soft_wrap=True)
    say_written(output)
