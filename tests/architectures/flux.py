"""FLUX.1, whose published config is the class's defaults."""

from __future__ import annotations

from .row import Architecture

_TINY = {
    "in_channels": 4,
    "num_layers": 4,
    "num_single_layers": 4,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "pooled_projection_dim": 8,
    "axes_dims_rope": (4, 4, 8),
}

ROWS = (
    Architecture(
        name="flux",
        class_name="FluxTransformer2DModel",
        tiny=_TINY,
        published={"black-forest-labs/FLUX.1-schnell": {}},
    ),
    Architecture(
        name="flux-guidance",
        class_name="FluxTransformer2DModel",
        tiny={**_TINY, "guidance_embeds": True},
        published={"black-forest-labs/FLUX.1-dev": {"guidance_embeds": True}},
    ),
)
