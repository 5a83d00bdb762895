"""Wan 2.1 VACE, whose hints enter at the blocks that vace_layers lists."""

from __future__ import annotations

from .row import Architecture
from .wan import TINY

_TINY = {**TINY, "vace_layers": (0, 2), "vace_in_channels": 6}

ROWS = (
    Architecture(
        name="wan-vace",
        class_name="WanVACETransformer3DModel",
        tiny=_TINY,
        refused={("blocks", "prefix"): "the class wants layer 0 in vace_layers"},
        published={
            "Wan-AI/Wan2.1-VACE-14B-diffusers": {},
            "Wan-AI/Wan2.1-VACE-1.3B-diffusers": {
                "num_attention_heads": 12,
                "ffn_dim": 8960,
                "num_layers": 30,
                "vace_layers": tuple(range(0, 30, 2)),
            },
        },
    ),
    Architecture(
        name="wan-vace-last",
        class_name="WanVACETransformer3DModel",
        tiny={**_TINY, "vace_layers": (0, 1, 3)},
        refused={("blocks", "prefix"): "the class wants layer 0 in vace_layers"},
    ),
)
