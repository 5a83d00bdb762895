"""`grow demo`: all of it, with the model that comes along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import console, quiet_libraries
from .options import Overwrite

if TYPE_CHECKING:
    from modelgrow.examples.demo import DemoResult

EPILOG = "Example:  [bold]grow demo -o grow-demo[/bold]"


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for clips and the grown pipeline.")] = Path(
        "grow-demo"
    ),
    prompt: Annotated[
        str, typer.Option(help="Shapes, colors and motions that the tiny model knows.")
    ] = "a red circle moves right",
    seed: Annotated[int, typer.Option(help="Seed of both clips.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """See it work, with no download: generate, grow, verify, generate again: the same clip, to the bit."""
    err = console(stderr=True)
    with err.status("loading torch and diffusers") as status:
        quiet_libraries()
        from modelgrow.examples.demo import run_demo

        result = run_demo(output, prompt=prompt, seed=seed, overwrite=overwrite, report=status.update)
    _show_demo(result)
    if not result.identical:
        raise typer.Exit(1)


def _show_demo(result: DemoResult) -> None:
    from rich.table import Table

    table = Table("", "base", "grown", title=f'"{result.prompt}"')
    for label, base, grown in result.rows:
        table.add_row(label, base, grown)
    out = console()
    out.print(table)
    style = "bold green" if result.identical else "bold red"
    out.print(result.sentence, style=style, markup=False)
    for path in result.paths:
        out.print(f"  {path}", markup=False, highlight=False)
