"""`grow expand`: duplicate blocks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .groups import Opening, Writing, grouped
from .jobs import carry_out, show_provable, show_written
from .options import AnatomyFiles, Ckpt, Components, Stack

if TYPE_CHECKING:
    from modelgrow.surgery import Job, Source

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow expand --mode suffix --blocks 8 Wan-AI/Wan2.1-T2V-1.3B-Diffusers[/bold]\n\n"
    "  [bold]grow expand --mode insert ./CogVideoX-2b -o ./CogVideoX-2b-deep[/bold]\n\n"
    "  [bold]grow expand --mode insert --group 5 ./CogVideoX-2b --dry-run[/bold]"
)


@grouped
def expand(
    ckpt: Ckpt,
    mode: Annotated[
        Literal["insert", "prefix", "suffix"],
        typer.Option(
            help="Where the new blocks go: into the stack after every group, before it, or after it.",
            show_default=False,
        ),
    ],
    blocks: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="P",
            show_default=False,
            help="How many new blocks. Default: insert doubles the depth; prefix and suffix add a quarter.",
        ),
    ] = None,
    group: Annotated[
        int | None,
        typer.Option(min=1, metavar="M", help="insert: copies follow every M-th block.", show_default=False),
    ] = None,
    stack: Stack = None,
    component: Components = None,
    init: Annotated[
        Literal["zero", "copy"],
        typer.Option(help="zero keeps the function; copy does not: the new blocks act from the start."),
    ] = "zero",
    allow_inexact: Annotated[
        bool,
        typer.Option("--allow-inexact", help="Grow even where an architecture makes an exact copy impossible."),
    ] = False,
    anatomy: AnatomyFiles = None,
    *,
    opening: Opening,
    writing: Writing,
) -> None:
    """Duplicate transformer blocks: same function, more depth (ModelGrow)."""
    from modelgrow.surgery import ExpandOptions, anatomies, plan_expand, prepare

    options = ExpandOptions(mode=mode, blocks=blocks, group=group, stack=stack, init=init, allow_inexact=allow_inexact)
    known = anatomies(tuple(anatomy or ()))

    def plan(source: Source, _: bool) -> Job:
        return prepare(
            source,
            lambda checkpoint, its: plan_expand(checkpoint, its, options),
            components=component or (),
            known=known,
        )

    show = partial(show_provable, base=ckpt) if init == "zero" else show_written
    carry_out(ckpt, plan, opening, writing, show=show)
