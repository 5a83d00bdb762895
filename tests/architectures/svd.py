"""Stable Video Diffusion, which grows by layers; its pairs of blocks have no exact growth."""

from __future__ import annotations

from .row import Architecture

TINY = {
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "layers_per_block": 2,
    "num_attention_heads": 2,
    "cross_attention_dim": 16,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
}
PAIRS = {("attentions", mode): "share one time_mixer" for mode in ("insert", "prefix", "suffix")}
PLACES = {("layers", mode): "only --mode insert" for mode in ("prefix", "suffix")}

ROWS = (
    Architecture(
        name="svd",
        class_name="UNetSpatioTemporalConditionModel",
        tiny=TINY,
        refused={**PAIRS, **PLACES},
        published={
            "stabilityai/stable-video-diffusion-img2vid": {"num_frames": 14},
            "stabilityai/stable-video-diffusion-img2vid-xt": {},
        },
    ),
    Architecture(
        name="svd-uneven",
        class_name="UNetSpatioTemporalConditionModel",
        tiny={**TINY, "layers_per_block": (2, 3), "transformer_layers_per_block": 2},
        refused={**PAIRS, **PLACES},
    ),
)
