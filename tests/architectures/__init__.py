"""One row per architecture: a tiny config to run, and the true configs of published models.

To add an architecture: one TOML file in surgery/anatomies/, one recipe in pipelines/probes.py, one row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """`tiny` must exercise every branch that a block can have; `published` maps Hub ids to their configs."""

    name: str
    class_name: str
    tiny: Mapping[str, Any]
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_WAN_TINY = {
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
_COG_TINY = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 8,
    "text_embed_dim": 16,
    "num_layers": 4,
    "sample_width": 8,
    "sample_height": 6,
    "sample_frames": 9,
    "patch_size": 2,
    "max_text_seq_length": 8,
}
_COG = {"attention_head_dim": 64, "in_channels": 16, "out_channels": 16, "text_embed_dim": 4096}
_COG15 = {
    **_COG,
    "num_attention_heads": 48,
    "num_layers": 42,
    "patch_size_t": 2,
    "patch_bias": False,
    "sample_frames": 81,
    "sample_height": 96,
    "sample_width": 170,
    "use_rotary_positional_embeddings": True,
}

ARCHITECTURES = (
    Architecture(
        name="wan",
        class_name="WanTransformer3DModel",
        tiny=_WAN_TINY,
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
        tiny={**_WAN_TINY, "in_channels": 6, "image_dim": 8, "added_kv_proj_dim": 24},
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
        tiny={**_WAN_TINY, "in_channels": 6, "image_dim": 8, "added_kv_proj_dim": 24, "pos_embed_seq_len": 10},
    ),
    Architecture(
        name="cogvideox-2b",
        class_name="CogVideoXTransformer3DModel",
        tiny=_COG_TINY,
        published={"zai-org/CogVideoX-2b": {**_COG, "num_attention_heads": 30, "num_layers": 30}},
    ),
    Architecture(
        name="cogvideox-5b",
        class_name="CogVideoXTransformer3DModel",
        tiny={**_COG_TINY, "use_rotary_positional_embeddings": True},
        published={
            "zai-org/CogVideoX-5b": {
                **_COG,
                "num_attention_heads": 48,
                "num_layers": 42,
                "use_rotary_positional_embeddings": True,
            }
        },
    ),
    Architecture(
        name="cogvideox-5b-i2v",
        class_name="CogVideoXTransformer3DModel",
        tiny={
            **_COG_TINY,
            "in_channels": 8,
            "use_rotary_positional_embeddings": True,
            "use_learned_positional_embeddings": True,
        },
        published={
            "zai-org/CogVideoX-5b-I2V": {
                **_COG,
                "in_channels": 32,
                "num_attention_heads": 48,
                "num_layers": 42,
                "use_rotary_positional_embeddings": True,
                "use_learned_positional_embeddings": True,
            }
        },
    ),
    Architecture(
        name="cogvideox-1.5",
        class_name="CogVideoXTransformer3DModel",
        tiny={**_COG_TINY, "use_rotary_positional_embeddings": True, "patch_size_t": 2, "patch_bias": False},
        published={
            "zai-org/CogVideoX1.5-5B": _COG15,
            "zai-org/CogVideoX1.5-5B-I2V": {**_COG15, "in_channels": 32, "ofs_embed_dim": 512},
        },
    ),
    Architecture(
        name="cogvideox-1.5-i2v",
        class_name="CogVideoXTransformer3DModel",
        tiny={
            **_COG_TINY,
            "in_channels": 8,
            "use_rotary_positional_embeddings": True,
            "patch_size_t": 2,
            "patch_bias": False,
            "ofs_embed_dim": 8,
        },
    ),
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
"""LTX-Video's published config is the class's defaults."""
