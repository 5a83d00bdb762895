"""Wan 2.1 and 2.2."""

from __future__ import annotations

from .row import Architecture

TINY = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 4,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 32,
}
_WAN = {
    "patch_size": (1, 2, 2),
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
}

ROWS = (
    Architecture(
        name="wan",
        class_name="WanTransformer3DModel",
        tiny=TINY,
        published={
            "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": {
                **_WAN,
                "num_attention_heads": 12,
                "ffn_dim": 8960,
                "num_layers": 30,
            },
            "Wan-AI/Wan2.1-T2V-14B-Diffusers": {
                **_WAN,
                "num_attention_heads": 40,
                "ffn_dim": 13824,
                "num_layers": 40,
            },
            "Wan-AI/Wan2.2-TI2V-5B-Diffusers": {
                **_WAN,
                "num_attention_heads": 24,
                "ffn_dim": 14336,
                "num_layers": 30,
                "in_channels": 48,
                "out_channels": 48,
            },
        },
    ),
    Architecture(
        name="wan-i2v",
        class_name="WanTransformer3DModel",
        tiny={**TINY, "in_channels": 6, "image_dim": 8, "added_kv_proj_dim": 24},
        published={
            "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": {
                **_WAN,
                "num_attention_heads": 40,
                "ffn_dim": 13824,
                "num_layers": 40,
                "in_channels": 36,
                "image_dim": 1280,
                "added_kv_proj_dim": 5120,
            },
        },
    ),
    Architecture(
        name="wan-flf2v",
        class_name="WanTransformer3DModel",
        tiny={**TINY, "in_channels": 6, "image_dim": 8, "added_kv_proj_dim": 24, "pos_embed_seq_len": 10},
    ),
)
