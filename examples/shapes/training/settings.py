"""Every number of the foundation in one place: seeds, clip size, model shapes."""

from __future__ import annotations

from typing import Any

TRAIN_SEED = 0
"""Clips the models are trained on: series 0, from number 0 upwards."""

VALIDATION_SEED = 1
"""Clips for the losses that are logged while training."""

MEASURE_SEED = 2026
"""Prompts and noise of `measure`: never used in training."""

FRAMES, HEIGHT, WIDTH, FPS = 17, 64, 64, 8

LATENT_CHANNELS = 16
TEMPORAL_RATIO, SPATIAL_RATIO = 2, 8

VAE: dict[str, Any] = {
    "base_dim": 24,
    "decoder_base_dim": 32,
    "dim_mult": [2, 2],
    "temperal_downsample": [True],
    "num_res_blocks": 1,
    "attn_scales": [],
    "z_dim": LATENT_CHANNELS,
    "patch_size": 4,
    "in_channels": 48,
    "out_channels": 48,
    "scale_factor_temporal": TEMPORAL_RATIO,
    "scale_factor_spatial": SPATIAL_RATIO,
    "latents_mean": [0.0] * LATENT_CHANNELS,
    "latents_std": [1.0] * LATENT_CHANNELS,
}
"""AutoencoderKLWan. Patches of 4, one halving of time and space: 17 x 64 x 64 becomes 9 x 8 x 8. The mean and the
standard deviation of its latents are measured after training and written into its config."""

TEXT_LENGTH = 20
"""Tokens of the longest short caption of two objects, with room to spare."""

TEXT_ENCODER: dict[str, Any] = {
    "d_model": 96,
    "d_kv": 24,
    "d_ff": 192,
    "num_layers": 2,
    "num_heads": 4,
    "dropout_rate": 0.0,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
    "use_cache": False,
}
"""UMT5EncoderModel, trained together with the transformer."""

TRANSFORMER: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "text_dim": TEXT_ENCODER["d_model"],
    "freq_dim": 128,
    "ffn_dim": 384,
    "num_layers": 6,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
}
"""WanTransformer3DModel: 9 x 4 x 4 = 144 tokens for a clip."""
