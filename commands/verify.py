"""`grow verify`: is it the same function?"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .console import console
from .options import AsJson, Device, Dtype

EPILOG = (
    "Example:  [bold]grow verify ./Wan2.1-T2V-1.3B-Diffusers-suffix8 --base Wan-AI/Wan2.1-T2V-1.3B-Diffusers[/bold]\n\n"
    "Exit code 0 only if every output is exactly equal."
)


def verify(
    grown: Annotated[str, typer.Argument(metavar="GROWN", help="The grown model.", show_default=False)],
    base: Annotated[str, typer.Option(metavar="CKPT", help="What it was grown from.", show_default=False)],
    draws: Annotated[int, typer.Option(min=1, help="How many random inputs to try.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the first input.")] = 0,
    dtype: Annotated[Dtype, typer.Option(help="auto: float32, or the stored dtype where memory is short.")] = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Run a grown model and its base on the same random inputs: is it the same function?"""
    err = console(stderr=True)
    with err.status("loading torch and diffusers") as status:
        from modelgrow.pipelines.quiet import quiet_libraries

        quiet_libraries()
        from modelgrow.pipelines.verify import verify as run

        report = run(grown, base, draws=draws, seed=seed, dtype=dtype, device=device, report=status.update)
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        for verdict in report.components:
            style = "green" if verdict.is_identical else "bold red"
            name = f"{verdict.name}: " if verdict.name else ""
            console().print(f"{name}{verdict.sentence}", style=style, markup=False, soft_wrap=True)
            for promise in (verdict.promises or ())[1:10]:
                console().print(f"  {promise}", markup=False, soft_wrap=True)
    if not report.is_identical:
        raise typer.Exit(1)
