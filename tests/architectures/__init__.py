"""One row per architecture: a tiny config to run, and the true configs of published models.

To add an architecture: one TOML file in surgery/anatomies/, one recipe in pipelines/probes/, one row here.
"""

from __future__ import annotations

from . import cogvideox, ltx, wan
from .row import Architecture

ARCHITECTURES = (*wan.ROWS, *cogvideox.ROWS, *ltx.ROWS)

__all__ = ["ARCHITECTURES", "Architecture"]
