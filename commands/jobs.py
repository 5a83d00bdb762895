"""How a job is shown: its plan, its progress, its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .console import console, count, escape, size

if TYPE_CHECKING:
    from pathlib import Path

    from modelgrow.surgery import Job, Plan


def execute(
    job: Job,
    output: Path,
    *,
    overwrite: bool,
    workers: int | None = None,
    link: bool = False,
    checksum: bool = False,
) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from modelgrow.surgery import execute

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("writing and comparing", total=job.work_bytes)
        execute(
            job,
            output,
            overwrite=overwrite,
            progress=lambda count: progress.advance(task, count),
            workers=workers,
            link=link,
            checksum=checksum,
        )
    if link:
        _warn_of_links(output)


def _warn_of_links(output: Path) -> None:
    linked = [path for path in output.rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    if linked:
        first = escape(str(linked[0].relative_to(output)))
        console(stderr=True).print(
            f"[yellow]{len(linked)} of its files are hard links to the base's ({first}{', ...' * (len(linked) > 1)}): "
            "a program that edits one in place edits the base too[/yellow]",
            soft_wrap=True,
        )


def outline(job: Job) -> dict[str, Any]:
    """A plan's JSON without the list of its tensors."""
    data = job.to_json()
    for plan in data["plans"].values():
        del plan["tensors"]
    return data


def show_plan(job: Job, output: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"output": str(output), **job.to_json()}, indent=2))
        return
    out = console()
    for name, plan in job.plans.items():
        _show_outline(name, plan)
        _show_tensors(plan)
    out.print(
        f"\nwould write {size(job.num_bytes)} to {escape(str(output))}. [bold]Nothing was written.[/bold]",
        highlight=False,
    )


def _show_tensors(plan: Plan) -> None:
    """A line for each tensor that is new or has another place. A rich table would take a second for a thousand."""
    from rich.text import Text

    from modelgrow.surgery import Copy
    from modelgrow.surgery.errors import printable

    shown = [
        (
            printable(tensor.name),
            tensor.dtype,
            "x".join(map(str, tensor.shape)),
            printable(content.source) if isinstance(content, Copy) else type(content).__name__.lower(),
            "green" if tensor.is_new else "yellow",
        )
        for tensor in plan.tensors
        if not isinstance(content := tensor.content, Copy) or content.source != tensor.name
    ]
    widths = [max((len(line[column]) for line in shown), default=0) for column in range(3)]
    text = Text(no_wrap=True)
    for *cells, what, style in shown:
        padded = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        text.append(f"{padded}  {what}\n", style=style)
    out = console()
    out.print(text, end="", soft_wrap=True)
    kept = len(plan.tensors) - len(shown)
    out.print(f"and {kept} tensors as they are; green is new, yellow is at another place", style="dim")


def _show_outline(name: str, plan: Plan) -> None:
    out = console()
    title = f"{name}: {plan.class_name}" if name else plan.class_name
    options = " ".join(f"{key}={value}" for key, value in plan.options.items())
    out.print(f"[cyan]{escape(title)}[/cyan]  {plan.operation} {escape(options)}", highlight=False)
    for key, value in plan.config_edits.items():
        out.print(f"  config: {escape(f'{key} = {value}')}", highlight=False)
    for stack, copies in plan.copied_from.items():
        new = ", ".join(f"{place} (of {source})" for place, source in copies.items())
        out.print(
            f"  {escape(stack)}: new blocks {new}; {count(plan.num_new_parameters)} new parameters", highlight=False
        )
    for note in plan.notes:
        out.print(f"  [yellow]{escape(note)}[/yellow]")


def show_written(job: Job, output: Path) -> None:
    for name, plan in job.plans.items():
        _show_outline(name, plan)
    console().print(f"\nwritten: [bold]{escape(str(output))}[/bold]", highlight=False, soft_wrap=True)


def show_done(job: Job, output: Path, base: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"output": str(output), **outline(job)}, indent=2))
        return
    show_written(job, output)
    console().print(f"prove it: grow verify {output} --base {base}", markup=False, highlight=False, soft_wrap=True)
