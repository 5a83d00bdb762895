"""One row per architecture: a tiny config to run, and the true configs of published models.

To add an architecture: one TOML file in surgery/anatomies/, one recipe in pipelines/probes/, one file with ROWS here.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from .row import Architecture

ARCHITECTURES: tuple[Architecture, ...] = tuple(
    row
    for module in iter_modules(__path__)
    if module.name != "row"
    for row in import_module(f"{__name__}.{module.name}").ROWS
)


def row_of(name: str) -> Architecture:
    """The row of that name."""
    return next(row for row in ARCHITECTURES if row.name == name)


__all__ = ["ARCHITECTURES", "Architecture", "row_of"]
