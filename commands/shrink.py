"""`grow shrink`: take the last step back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .console import console, escape, say_written
from .groups import Opening, Writing, grouped
from .jobs import carry_out
from .options import Components

if TYPE_CHECKING:
    from pathlib import Path

    from modelgrow.surgery import Job, Source

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow shrink ./CogVideoX-2b-insert30 -o ./CogVideoX-2b-again[/bold]\n\n"
    "  [bold]grow shrink ./Wan2.2-T2V-A14B-suffix10 --component transformer --dry-run[/bold]\n\n"
    "What the step only carried over comes back as it is now: byte for byte the base's, unless it was trained since."
)


@grouped
def shrink(
    grown: Annotated[
        str, typer.Argument(metavar="GROWN", help="A grown model, with its growth.json.", show_default=False)
    ],
    component: Components = None,
    *,
    opening: Opening,
    writing: Writing,
) -> None:
    """Take a model's last growth back: the tensors, the config and the record that it had before."""
    from modelgrow.surgery.shrink import prepare_shrink

    def plan(source: Source, _: bool) -> Job:
        return prepare_shrink(source, components=component or ())

    carry_out(grown, plan, opening, writing, show=_show)


def _show(job: Job, output: Path) -> None:
    out = console()
    for name, plan in job.plans.items():
        for note in plan.notes:
            out.print(f"{name + ': ' if name else ''}{escape(note)}", highlight=False, soft_wrap=True)
    say_written(output)
