"""PixArt: alpha is told the picture's size, Sigma is not; both were published under an older class name."""

from __future__ import annotations

from .row import Architecture

_TINY = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 4,
    "cross_attention_dim": 24,
    "sample_size": 8,
    "caption_channels": 16,
}

# What the class of its own has as defaults.
_SHARED = {
    "out_channels": 8,
    "attention_bias": True,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
}
_XL2 = {
    **_SHARED,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "sample_size": 128,
    "caption_channels": 4096,
}

ROWS = (
    Architecture(
        name="pixart-alpha",
        class_name="PixArtTransformer2DModel",
        tiny={**_TINY, "use_additional_conditions": True},
    ),
    Architecture(name="pixart-sigma", class_name="PixArtTransformer2DModel", tiny=_TINY),
    Architecture(
        name="pixart-published",
        class_name="Transformer2DModel",
        tiny={**_TINY, **_SHARED},
        published={
            "PixArt-alpha/PixArt-XL-2-1024-MS": _XL2,
            "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": {
                **_XL2,
                "interpolation_scale": 2,
                "use_additional_conditions": False,
            },
        },
    ),
)
