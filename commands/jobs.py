"""Commands that write a folder: the plan of a job shown, or carried out and what it has made shown."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from .bars import moving_bytes
from .console import console, count, escape, print_json, say_unwritten, say_written, size
from .sources import fetched, look_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from modelgrow.surgery import Job, Plan, Source

    from .groups import Opening, Writing

_MOST_BLOCKS = 8
"""New blocks of a stack that are all named."""
_LONGEST = 160
"""Characters of a line about the config."""


def show_written(job: Job, output: Path) -> None:
    """What has grown, and where it is."""
    for name, plan in job.plans.items():
        _show_outline(name, plan)
    console().print()
    say_written(output)


def show_provable(job: Job, output: Path, *, base: str) -> None:
    """Likewise, and the command that proves it to be the same function as `base`."""
    from modelgrow.surgery.errors import printable

    show_written(job, output)
    proof = shlex.join(["grow", "verify", str(output), "--base", base])
    console().print(f"prove it: {printable(proof)}", markup=False, highlight=False, soft_wrap=True)


def carry_out(
    ckpt: str,
    plan: Callable[[Source, bool], Job],
    opening: Opening,
    writing: Writing,
    *,
    name: Callable[[Job], Path] | None = None,
    show: Callable[[Job, Path], None] = show_written,
) -> None:
    """All of a command that writes a folder: a plan from headers, and then that plan shown, or what it has made.

    What would be refused is refused before anything large is downloaded.

    Args:
        ckpt: What the user named.
        plan: What to do with it; with True it leaves on the Hub what only the writing needs.
        opening: How it is opened.
        writing: Where it goes.
        name: What the output is called where the user does not say; `surgery.default_output` if None.
        show: Tells a person what was written.

    Raises:
        GrowError: It can't be opened or planned, or see `surgery.execute`.
    """
    from modelgrow.surgery import default_output, execute
    from modelgrow.surgery.staging import check_output

    source = look_at(ckpt, opening)
    job = plan(source, True)
    target = writing.output or (name or default_output)(job)
    if writing.dry_run:
        _show_plan(job, target, as_json=writing.as_json)
        return
    if job.missing:
        check_output(target, inputs=[source.path], overwrite=writing.overwrite)
        job = plan(fetched(ckpt, opening, source, job.missing), False)
    with moving_bytes(job.work_bytes) as advance:
        execute(
            job,
            target,
            overwrite=writing.overwrite,
            progress=advance,
            workers=writing.workers,
            link=writing.link,
            checksum=writing.checksum,
        )
    if writing.link:
        _tell_of_links(target)
    if writing.as_json:
        print_json(target, _outline(job))
    else:
        show(job, target)


def _tell_of_links(output: Path) -> None:
    linked = [path for path in output.rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    told = "--link linked nothing: no large file stays as it is, or the base is on another disk"
    if linked:
        first = escape(str(linked[0].relative_to(output)))
        told = (
            f"{len(linked)} of its files are hard links to the base's ({first}{', ...' * (len(linked) > 1)}): "
            "a program that edits one in place edits the base too"
        )
    console(stderr=True).print(f"[yellow]{told}[/yellow]", highlight=False, soft_wrap=True)


def _outline(job: Job) -> dict[str, Any]:
    """A plan's JSON without the list of its tensors."""
    data = job.to_json()
    for plan in data["plans"].values():
        del plan["tensors"]
    return data


def _show_plan(job: Job, output: Path, *, as_json: bool) -> None:
    download = sum(job.missing.values())
    if as_json:
        print_json(output, job.to_json(), download=download)
        return
    for name, plan in job.plans.items():
        _show_outline(name, plan)
        _show_tensors(plan)
    console().print()
    say_unwritten(job.num_bytes, output, download=download)


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
    options = " ".join(f"{key}={value}" for key, value in plan.options.items() if value is not None)
    lines = [f"[cyan]{escape(title)}[/cyan]  {plan.operation} {escape(options)}"]
    lines += [f"  config: {escape(_cut(f'{key} = {value}'))}" for key, value in plan.config_edits.items()]
    lines += [f"  {escape(stack)}: {_new_blocks(copies)}" for stack, copies in plan.copied_from.items()]
    if plan.copied_from:
        num_bytes = sum(tensor.nbytes for tensor in plan.tensors if tensor.is_new)
        lines.append(f"  {count(plan.num_new_parameters)} new parameters, {size(num_bytes)}")
    lines += [f"  [yellow]{escape(note)}[/yellow]" for note in plan.notes]
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)


def _cut(line: str) -> str:
    """Of a table in a config as much as fits; config.json and --json have all of it."""
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def _new_blocks(copies: Mapping[int, int]) -> str:
    """ "new blocks 2 (of 1), 5 (of 3)"; of many the first ones and the last."""
    told = [f"{place} (of {source})" for place, source in copies.items()]
    if len(told) <= _MOST_BLOCKS:
        return f"new blocks {', '.join(told)}"
    return f"{len(told)} new blocks, {', '.join(told[:3])} ... {told[-1]}"
