"""Mochi 1, whose published config is the class's defaults."""

from __future__ import annotations

from .row import Architecture

ROWS = (
    Architecture(
        name="mochi",
        class_name="MochiTransformer3DModel",
        tiny={
            "patch_size": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 4,
            "pooled_projection_dim": 24,
            "in_channels": 4,
            "text_embed_dim": 16,
            "time_embed_dim": 8,
        },
        published={"genmo/mochi-1-preview": {}},
    ),
)
