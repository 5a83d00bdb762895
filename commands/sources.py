"""How a command opens what was named: of a model on the Hub the headers first, and weights when they are moved."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from .console import console, escape, size

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from modelgrow.surgery import Source

    from .groups import Opening


def look_at(ckpt: str, opening: Opening, *, fetch: Collection[str] = ()) -> Source:
    """See `surgery.open_source`, with headers alone but for the files in `fetch`."""
    from modelgrow.surgery import open_source

    with _headers() as report:
        return open_source(
            ckpt,
            config=opening.config,
            variant=opening.variant,
            revision=opening.revision,
            headers_only=True,
            fetch=fetch,
            report=report,
        )


def fetched(ckpt: str, opening: Opening, source: Source, missing: Mapping[str, int]) -> Source:
    """What `look_at` opened, with files that were missing, as a plan that holds has found out."""
    if not missing:
        return source
    console(stderr=True).print(f"the plan holds; {size(sum(missing.values()))} come from the Hub")
    return look_at(ckpt, replace(opening, revision=source.commit or opening.revision), fetch=missing)


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
