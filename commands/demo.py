"""`grow demo`: all of it, with the model that comes along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import console
from .options import Overwrite

if TYPE_CHECKING:
    from rich.console import Console

    from modelgrow.examples.demo import DemoResult
    from modelgrow.examples.learn import Learned

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow demo -o grow-demo[/bold]\n\n"
    "  [bold]grow demo --no-train[/bold]                          half a minute\n\n"
    "  [bold]grow demo --steps 1000 --prompts 256[/bold]          trains longer, measures finer, takes longer"
)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for clips and the grown pipeline.")] = Path(
        "grow-demo"
    ),
    prompt: Annotated[
        str, typer.Option(help="Shapes, colors and motions that the tiny model knows.")
    ] = "a red circle moves right",
    seed: Annotated[int, typer.Option(help="Seed of both clips, and of the training.")] = 0,
    train: Annotated[bool, typer.Option(help="Train what is new, and measure what it has learned.")] = True,
    steps: Annotated[int, typer.Option(min=1, help="Of training, with 16 clips each.")] = 300,
    prompts: Annotated[int, typer.Option(min=2, help="To measure with, of one, two and three objects each.")] = 128,
    overwrite: Overwrite = False,
) -> None:
    """See it work, with no download: generate, grow, verify, generate again: the same clip, to the bit. Then train."""
    err = console(stderr=True)
    with err.status("loading torch and diffusers") as status:
        from modelgrow.pipelines.quiet import quiet_libraries

        quiet_libraries()
        from modelgrow.examples.demo import run_demo, teach

        result = run_demo(output, prompt=prompt, seed=seed, overwrite=overwrite, report=status.update)
    _show_demo(result)
    if train and result.identical:
        with err.status("training") as status:
            learned, paths = teach(output, seed=seed, steps=steps, prompts=prompts, report=status.update)
        _show_learned(learned, paths)
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
    _show_paths(out, result.paths)


def _show_learned(learned: Learned, paths: tuple[Path, ...]) -> None:
    from rich.table import Table

    run = learned.run
    title = (
        f"{run.steps} steps of {learned.settings.batch_size} clips in {run.seconds:.0f} s, "
        f"{run.trained_parameters:,} new parameters; {learned.prompts} prompts of each kind, read by a program"
    )
    table = Table("objects", "right", "base", "trained", "change", title=title)
    for change in learned.changes:
        style = "green" if change.rose else "red" if change.fell else ""
        difference = f"{100 * (change.trained - change.base):+.1f} +/- {100 * change.error:.1f}"
        cells = (f"{100 * change.base:.1f} %", f"{100 * change.trained:.1f} %", difference)
        table.add_row(str(change.objects), change.aspect, *cells, style=style)
    out = console()
    out.print()
    out.print(table)
    out.print(learned.sentence, markup=False)
    _show_paths(out, paths)


def _show_paths(out: Console, paths: tuple[Path, ...]) -> None:
    for path in paths:
        out.print(f"  {path}", markup=False, highlight=False)
