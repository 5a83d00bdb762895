"""ExVideo's extension of Stable Video Diffusion, which grows as its base does."""

from __future__ import annotations

from .row import Architecture
from .svd import PAIRS, PLACES, TINY

ROWS = (
    Architecture(
        name="exvideo",
        class_name="ExVideoUNetSpatioTemporalConditionModel",
        tiny={**TINY, "num_frames": 4, "num_position_frames": 8},
        refused={**PAIRS, **PLACES},
    ),
)
