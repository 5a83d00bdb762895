"""Wan 2.2 Animate, with a face adapter at every n-th block."""

from __future__ import annotations

from .row import Architecture

_TINY = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 12,
    "latent_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 4,
    "image_dim": 8,
    "added_kv_proj_dim": 24,
    "rope_max_seq_len": 32,
    "motion_encoder_channel_sizes": {"4": 4, "8": 4, "16": 4},
    "motion_encoder_size": 16,
    "motion_style_dim": 8,
    "motion_dim": 4,
    "motion_encoder_dim": 12,
    "face_encoder_hidden_dim": 8,
    "face_encoder_num_heads": 2,
    "inject_face_latents_blocks": 2,
}

ROWS = (
    Architecture(
        name="wan-animate",
        class_name="WanAnimateTransformer3DModel",
        tiny=_TINY,
        published={"Wan-AI/Wan2.2-Animate-14B-Diffusers": {"added_kv_proj_dim": 5120}},
    ),
    Architecture(
        name="wan-animate-every-block",
        class_name="WanAnimateTransformer3DModel",
        tiny={**_TINY, "added_kv_proj_dim": None, "inject_face_latents_blocks": 1},
    ),
)
