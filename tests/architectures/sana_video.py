"""SANA-Video."""

from __future__ import annotations

from .row import Architecture

_TINY = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "num_layers": 4,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 12,
    "cross_attention_dim": 24,
    "caption_channels": 16,
    "mlp_ratio": 2.0,
    "rope_max_seq_len": 32,
}

ROWS = (
    Architecture(
        name="sana-video",
        class_name="SanaVideoTransformer3DModel",
        tiny=_TINY,
        published={"Efficient-Large-Model/SANA-Video_2B_480p_diffusers": {"mlp_ratio": 3.0}},
    ),
    Architecture(
        name="sana-video-guidance",
        class_name="SanaVideoTransformer3DModel",
        tiny={**_TINY, "num_layers": 2, "guidance_embeds": True},
    ),
)
