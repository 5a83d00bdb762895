"""`grow shrink`: take the last step back."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .console import console, escape
from .jobs import execute, outline, show_plan
from .options import AsJson, Components, Config, DryRun, Output, Overwrite, Revision, Variant

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
    from modelgrow.surgery import default_output, open_source
    from modelgrow.surgery.shrink import prepare_shrink

    source = open_source(grown, config=config, variant=variant, revision=revision)
    job = prepare_shrink(source, components=component or ())
    target = output or default_output(job)
    if dry_run:
        show_plan(job, target, as_json=as_json)
        return
    execute(job, target, overwrite=overwrite)
    if as_json:
        print(json.dumps({"output": str(target), **outline(job)}, indent=2))
        return
    out = console()
    for name, plan in job.plans.items():
        for note in plan.notes:
            out.print(f"{name + ': ' if name else ''}{escape(note)}", highlight=False, soft_wrap=True)
    out.print(f"written: [bold]{escape(str(target))}[/bold]", highlight=False, soft_wrap=True)
