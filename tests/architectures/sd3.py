"""Stable Diffusion 3, and 3.5 with its second attention in some blocks."""

from __future__ import annotations

from .row import Architecture

_TINY = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 4,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "caption_projection_dim": 16,
    "pooled_projection_dim": 8,
    "pos_embed_max_size": 8,
}
_SD3 = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}

ROWS = (
    Architecture(
        name="sd3",
        class_name="SD3Transformer2DModel",
        tiny=_TINY,
        published={"stabilityai/stable-diffusion-3-medium-diffusers": _SD3},
    ),
    Architecture(
        name="sd3.5",
        class_name="SD3Transformer2DModel",
        tiny={**_TINY, "qk_norm": "rms_norm", "dual_attention_layers": (0, 2)},
        published={
            "stabilityai/stable-diffusion-3.5-medium": {
                **_SD3,
                "pos_embed_max_size": 384,
                "qk_norm": "rms_norm",
                "dual_attention_layers": tuple(range(13)),
            },
            "stabilityai/stable-diffusion-3.5-large": {
                **_SD3,
                "num_layers": 38,
                "num_attention_heads": 38,
                "caption_projection_dim": 2432,
                "qk_norm": "rms_norm",
            },
        },
    ),
    Architecture(
        name="sd3.5-dual-last",
        class_name="SD3Transformer2DModel",
        tiny={**_TINY, "qk_norm": "rms_norm", "dual_attention_layers": (1, 3)},
    ),
)
