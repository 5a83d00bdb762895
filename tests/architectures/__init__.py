"""One row per architecture: a tiny config to run, and the true configs of published models.

To add an architecture: one TOML file in surgery/anatomies/, one recipe in pipelines/probes/, one row here.
"""

from __future__ import annotations

from . import (
    allegro,
    cogvideox,
    cosmos,
    easyanimate,
    flux,
    hunyuan_video,
    hunyuan_video15,
    kandinsky5,
    latte,
    ltx,
    ltx2,
    mochi,
    pixart,
    sana_video,
    sd3,
    svd,
    unet_motion,
    wan,
    wan_animate,
    wan_vace,
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
    *easyanimate.ROWS,
    *flux.ROWS,
    *pixart.ROWS,
    *sd3.ROWS,
    *svd.ROWS,
    *unet_motion.ROWS,
    *wan_animate.ROWS,
    *wan_vace.ROWS,
)

__all__ = ["ARCHITECTURES", "Architecture"]
