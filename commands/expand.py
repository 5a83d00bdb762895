"""`grow expand`: duplicate blocks."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import typer

from .jobs import finish, show_provable
from .options import (
    AnatomyFiles,
    AsJson,
    Checksum,
    Ckpt,
    Components,
    Config,
    DryRun,
    Link,
    Output,
    Overwrite,
    Revision,
    Variant,
    Workers,
)
from .sources import planned

EPILOG = (
    "Examples:\n\n"
    "  [bold]grow expand --mode suffix --blocks 8 Wan-AI/Wan2.1-T2V-1.3B-Diffusers[/bold]\n\n"
    "  [bold]grow expand --mode insert ./CogVideoX-2b -o ./CogVideoX-2b-deep[/bold]\n\n"
    "  [bold]grow expand --mode insert --group 5 ./CogVideoX-2b --dry-run[/bold]"
)


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
    stack: Annotated[
        str | None,
        typer.Option(help="Which stack, where a model has several. Default: the main one.", show_default=False),
    ] = None,
    component: Components = None,
    init: Annotated[
        Literal["zero", "copy"],
        typer.Option(help="zero keeps the function; copy does not: the new blocks act from the start."),
    ] = "zero",
    allow_inexact: Annotated[
        bool,
        typer.Option("--allow-inexact", help="Grow even where an architecture makes an exact copy impossible."),
    ] = False,
    output: Output = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    link: Link = False,
    checksum: Checksum = False,
    workers: Workers = None,
    as_json: AsJson = False,
    anatomy: AnatomyFiles = None,
    config: Config = None,
    variant: Variant = None,
    revision: Revision = None,
) -> None:
    """Duplicate transformer blocks: same function, more depth (ModelGrow)."""
    from modelgrow.surgery import ExpandOptions, anatomies, plan_expand, prepare

    options = ExpandOptions(mode=mode, blocks=blocks, group=group, stack=stack, init=init, allow_inexact=allow_inexact)
    known = anatomies(tuple(anatomy or ()))
    job = planned(
        ckpt,
        lambda source: prepare(
            source,
            lambda checkpoint, its: plan_expand(checkpoint, its, options),
            components=component or (),
            known=known,
        ),
        dry_run=dry_run,
        config=config,
        variant=variant,
        revision=revision,
    )
    finish(
        job,
        output,
        dry_run=dry_run,
        overwrite=overwrite,
        as_json=as_json,
        workers=workers,
        link=link,
        checksum=checksum,
        show=partial(show_provable, base=ckpt),
    )
