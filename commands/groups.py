"""Options that go together, as one parameter of a command each: typer itself knows no groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

from .options import AsJson, Checksum, Config, DryRun, Link, Output, Overwrite, Revision, Variant, Workers


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How what was named is opened: see `surgery.open_source`."""

    config: Config = None
    variant: Variant = None
    revision: Revision = None


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Whether something is written, and how that is told."""

    dry_run: DryRun = False
    overwrite: Overwrite = False
    as_json: AsJson = False


@dataclass(frozen=True, kw_only=True)
class Writing(Saving):
    """How a model's folder is written, if at all: see `surgery.execute`."""

    output: Output = None
    link: Link = False
    checksum: Checksum = False
    workers: Workers = None


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command as typer wants it: in place of each parameter that is a dataclass stand that one's fields."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = groups.get(parameter.name)
        parameters += [parameter.replace(annotation=hints[parameter.name])] if kind is None else _options(kind)

    @wraps(command)
    def run(**given: Any) -> None:
        made = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        command(**given, **made)

    told: Any = run
    told.__signature__ = inspect.Signature(parameters)
    told.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _options(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(f.name, keyword, default=f.default, annotation=hints[f.name]) for f in fields(kind)]
