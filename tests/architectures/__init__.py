"""One row per architecture: a tiny config to run, and the true configs of published models.

To add an architecture: one TOML file in surgery/anatomies/, one recipe in pipelines/probes/, one row here.
"""

from __future__ import annotations

from . import (
    allegro,
    cogvideox,
    cosmos,
    hunyuan_video,
    hunyuan_video15,
    kandinsky5,
    latte,
    ltx,
    ltx2,
    mochi,
    sana_video,
    wan,
)
from .row import Architecture

ARCHITECTURES = (
    *wan.ROWS,
    *cogvideox.ROWS,
    *ltx.ROWS,
    *hunyuan_video.ROWS,
    *hunyuan_video15.ROWS,
    *ltx2.ROWS,
    *mochi.ROWS,
    *latte.ROWS,
    *allegro.ROWS,
    *cosmos.ROWS,
    *sana_video.ROWS,
    *kandinsky5.ROWS,
)

__all__ = ["ARCHITECTURES", "Architecture"]
