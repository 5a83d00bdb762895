"""LTX-Video, whose published config is the class's defaults."""

from __future__ import annotations

from .row import Architecture

ROWS = (
    Architecture(
        name="ltx",
        class_name="LTXVideoTransformer3DModel",
        tiny={
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "cross_attention_dim": 32,
            "num_layers": 4,
            "caption_channels": 16,
        },
        published={"Lightricks/LTX-Video": {}},
    ),
)
