"""Latte."""

from __future__ import annotations

from .row import Architecture

_LATTE = {
    "in_channels": 4,
    "out_channels": 8,
    "attention_bias": True,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
}

ROWS = (
    Architecture(
        name="latte",
        class_name="LatteTransformer3DModel",
        tiny={
            **_LATTE,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 4,
            "cross_attention_dim": 24,
            "sample_size": 8,
            "caption_channels": 16,
            "video_length": 4,
        },
        published={
            "maxin-cn/Latte-1": {
                **_LATTE,
                "num_attention_heads": 16,
                "attention_head_dim": 72,
                "num_layers": 28,
                "cross_attention_dim": 1152,
                "sample_size": 64,
                "caption_channels": 4096,
                "video_length": 16,
            }
        },
        refused={("transformer_blocks", "prefix"): "added after spatial block 0"},
    ),
)
