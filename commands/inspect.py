"""`grow inspect`: what a checkpoint is, what can grow in it, and what has grown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .console import console, count, escape, size
from .groups import Opening, grouped
from .options import AnatomyFiles, AsJson, Ckpt
from .sources import look_at

if TYPE_CHECKING:
    from modelgrow.surgery import SourceReport
    from modelgrow.surgery.inspect import ComponentReport

EPILOG = "Example:  [bold]grow inspect Wan-AI/Wan2.1-T2V-1.3B-Diffusers[/bold]"


@grouped
def inspect(
    ckpt: Ckpt,
    as_json: AsJson = False,
    anatomy: AnatomyFiles = None,
    *,
    opening: Opening,
) -> None:
    """Show what a checkpoint is, what can grow in it, and what has grown."""
    from modelgrow.surgery import anatomies
    from modelgrow.surgery import inspect as look

    source = look_at(ckpt, opening)
    report = look(source, known=anatomies(tuple(anatomy or ())))
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        _show_report(report)


def _show_report(report: SourceReport) -> None:
    from rich.table import Table

    out = console()
    out.print(f"[bold]{escape(report.name)}[/bold]" + (f"  ({escape(report.pipeline)})" if report.pipeline else ""))
    some = any(part.growable for part in report.components)
    for part in report.components:
        if some and not part.growable and part.parameters is not None:
            out.print(f"\n{_title(part)}  {_weights(part)}", highlight=False)
            continue
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        if part.parameters is not None:
            table.add_row("parameters", _weights(part))
        for stack in part.stacks:
            counted = f", counted by {', '.join(stack.count_keys)}" if stack.count_keys else ""
            places = f" in each of {stack.places} places" if stack.places > 1 else ""
            each = count(stack.parameters_per_block)
            table.add_row("stack", f"{escape(stack.name)}: {stack.depth} blocks of {each}{places}{counted}")
        if part.text:
            table.add_row("text", escape(part.text))
        if part.slot:
            table.add_row("llm slot", escape(part.slot))
        if part.frames:
            table.add_row("frames", escape(part.frames))
        if part.family or part.growable:
            table.add_row("known as", str(part.family))
        for line in part.history:
            table.add_row("history", escape(line))
        table.add_row("[green]can grow[/green]" if part.growable else "can't grow", escape(part.advice))
        out.print(f"\n{_title(part)}")
        out.print(table)


def _title(part: ComponentReport) -> str:
    return f"[cyan]{part.name + ': ' if part.name else ''}{escape(part.class_name)}[/cyan]"


def _weights(part: ComponentReport) -> str:
    return f"{count(part.parameters or 0)}, {size(part.num_bytes or 0)}, {', '.join(part.dtypes)}"
