"""How the commands speak: consoles, bars, sizes. Rich is imported when it is needed."""

from __future__ import annotations

import json
import re
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def escape(text: str) -> str:
    """Text from outside as rich may print it: no markup, and nothing that a terminal takes for a command."""
    from rich.markup import escape

    from modelgrow.surgery.errors import printable

    return escape(printable(text))


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, moved by calls of (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from modelgrow.surgery.errors import GrowError

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True)) as progress:
        task = progress.add_task(what, total=None)
        try:
            yield lambda done, total: progress.update(task, completed=done, total=total)
        except GrowError:
            progress.update(task, visible=progress.tasks[0].completed > 0)  # no empty bar above the message
            raise


def count(number: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def size(num_bytes: int) -> str:
    from modelgrow.surgery.disk import size

    return size(num_bytes)


def print_json(output: Path, about: Mapping[str, Any], *, download: int | None = None) -> None:
    """For a script: where the output is, in a dry run the bytes that would come from the Hub, and the rest."""
    told = {} if download is None else {"download": download}
    print(json.dumps({"output": str(output), **told, **about}, indent=2))


def say_unwritten(num_bytes: int, output: Path, *, download: int = 0) -> None:
    """The last lines of a dry run: bytes that would be written, and that would come from the Hub."""
    if download:
        console().print(f"would download {size(download)} from the Hub", highlight=False)
    console().print(
        f"would write {size(num_bytes)} to {escape(str(output))}. [bold]Nothing was written.[/bold]",
        highlight=False,
        soft_wrap=True,
    )


def say_written(output: Path) -> None:
    """Where something new is."""
    console().print(f"written: [bold]{escape(str(output))}[/bold]", highlight=False, soft_wrap=True)


def slug(prompt: str) -> str:
    """A file's name for a prompt in any script, of at most 60 characters and so few bytes that a seed fits behind."""
    words = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", prompt.lower())).strip("-")
    return words[:60].encode()[:200].decode(errors="ignore").strip("-") or "clip"
