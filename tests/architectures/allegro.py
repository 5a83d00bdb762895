"""Allegro, whose published config is the class's defaults."""

from __future__ import annotations

from .row import Architecture

ROWS = (
    Architecture(
        name="allegro",
        class_name="AllegroTransformer3DModel",
        tiny={
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 4,
            "cross_attention_dim": 24,
            "caption_channels": 16,
        },
        published={"rhymes-ai/Allegro": {}},
    ),
)
