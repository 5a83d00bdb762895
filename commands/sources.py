"""How a command opens what was named: of a model on the Hub the headers first, and weights when they are moved."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from .console import console, escape, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from modelgrow.surgery import Job, Source


def look_at(
    ckpt: str, *, config: Path | None = None, variant: str | None = None, revision: str | None = None
) -> Source:
    """See `surgery.open_source`, with headers alone."""
    from modelgrow.surgery import open_source

    with _headers() as report:
        return open_source(ckpt, config=config, variant=variant, revision=revision, headers_only=True, report=report)


def planned(
    ckpt: str,
    plan: Callable[[Source], Job],
    *,
    dry_run: bool,
    config: Path | None = None,
    variant: str | None = None,
    revision: str | None = None,
) -> Job:
    """Plan from headers, so that a plan that does not hold is refused before anything large is downloaded.

    Args:
        ckpt: See `surgery.open_source`, also for `config`, `variant` and `revision`.
        plan: What to do with it.
        dry_run: Leave what is on the Hub there; the plan can only be shown then.

    Raises:
        GrowError: It can't be opened, or can't be planned.
    """
    from modelgrow.surgery import open_source

    source = look_at(ckpt, config=config, variant=variant, revision=revision)
    job = plan(source)
    if dry_run or not job.source.elsewhere:
        return job
    console(stderr=True).print(f"the plan holds; {size(job.download_bytes)} come from the Hub")
    return plan(open_source(ckpt, config=config, variant=variant, revision=source.commit))


@contextmanager
def _headers() -> Iterator[Callable[[str], None]]:
    """A line on stderr from the first header on that comes from the Hub."""
    status = console(stderr=True).status("")
    try:

        def report(name: str) -> None:
            status.update(f"header of {escape(name)}")
            status.start()

        yield report
    finally:
        status.stop()
