"""How a job ends: its plan shown, or carried out and what it has made shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .bars import moving_bytes
from .console import console, count, escape, say_unwritten, say_written, size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from modelgrow.surgery import Job, Plan


def show_written(job: Job, output: Path) -> None:
    """What has grown, and where it is."""
    for name, plan in job.plans.items():
        _show_outline(name, plan)
    console().print()
    say_written(output)


def show_provable(job: Job, output: Path, *, base: str) -> None:
    """Likewise, and the command that proves it to be the same function as `base`."""
    show_written(job, output)
    console().print(f"prove it: grow verify {output} --base {base}", markup=False, highlight=False, soft_wrap=True)


def finish(
    job: Job,
    output: Path | None,
    *,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
    workers: int | None = None,
    link: bool = False,
    checksum: bool = False,
    show: Callable[[Job, Path], None] = show_written,
) -> None:
    """The end of every command that writes a folder: the plan, or what it has made.

    Args:
        job: What the command would do.
        output: The folder to write; named after what is done if None.
        dry_run: Print the plan and write nothing.
        overwrite: See `surgery.execute`, also for `workers`, `link` and `checksum`.
        as_json: Print for a script.
        show: Tells a person what was written.

    Raises:
        GrowError: See `surgery.execute`.
    """
    from modelgrow.surgery import default_output, execute

    target = output or default_output(job)
    if dry_run:
        _show_plan(job, target, as_json=as_json)
        return
    with moving_bytes(job.work_bytes) as advance:
        execute(job, target, overwrite=overwrite, progress=advance, workers=workers, link=link, checksum=checksum)
    if link:
        _warn_of_links(target)
    if as_json:
        print(json.dumps({"output": str(target), **_outline(job)}, indent=2))
    else:
        show(job, target)


def _warn_of_links(output: Path) -> None:
    linked = [path for path in output.rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    if linked:
        first = escape(str(linked[0].relative_to(output)))
        console(stderr=True).print(
            f"[yellow]{len(linked)} of its files are hard links to the base's ({first}{', ...' * (len(linked) > 1)}): "
            "a program that edits one in place edits the base too[/yellow]",
            soft_wrap=True,
        )


def _outline(job: Job) -> dict[str, Any]:
    """A plan's JSON without the list of its tensors."""
    data = job.to_json()
    for plan in data["plans"].values():
        del plan["tensors"]
    return data


def _show_plan(job: Job, output: Path, *, as_json: bool) -> None:
    if as_json:
        about = {"output": str(output), "download": job.download_bytes}
        print(json.dumps({**about, **job.to_json()}, indent=2))
        return
    for name, plan in job.plans.items():
        _show_outline(name, plan)
        _show_tensors(plan)
    console().print()
    if job.source.elsewhere:
        console().print(f"would download {size(job.download_bytes)} from the Hub", highlight=False)
    say_unwritten(job.num_bytes, output)


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
