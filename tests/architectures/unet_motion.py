"""AnimateDiff: the whole UNet, and the motion modules that are plugged into one."""

from __future__ import annotations

from .row import Architecture

_UNET = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
    "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
    "cross_attention_dim": 16,
    "num_attention_heads": 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "motion_num_attention_heads": 2,
    "motion_max_seq_length": 8,
}
_ADAPTER = {
    "block_out_channels": (16, 32),
    "motion_layers_per_block": 1,
    "motion_norm_num_groups": 4,
    "motion_num_attention_heads": 2,
    "motion_max_seq_length": 8,
}

ROWS = (
    Architecture(
        name="unet-motion",
        class_name="UNetMotionModel",
        tiny=_UNET,
        published={
            "stable-diffusion-v1-5/stable-diffusion-v1-5 with animatediff-motion-adapter-v1-5-2": {
                "cross_attention_dim": 768
            }
        },
    ),
    Architecture(
        name="unet-motion-deeper",
        class_name="UNetMotionModel",
        tiny={
            **_UNET,
            "transformer_layers_per_block": (2, 2),
            "transformer_layers_per_mid_block": 4,
            "temporal_transformer_layers_per_block": (2, 4),
            "temporal_transformer_layers_per_mid_block": 2,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 32,
        },
    ),
    Architecture(
        name="unet-motion-uneven",
        class_name="UNetMotionModel",
        tiny={
            **_UNET,
            "transformer_layers_per_block": ((2,), (1,)),
            "reverse_transformer_layers_per_block": ((1, 1), (2, 1)),
            "transformer_layers_per_mid_block": 1,
            "temporal_transformer_layers_per_block": ((1,), (2,)),
            "reverse_temporal_transformer_layers_per_block": ((2, 1), (1, 3)),
            "use_motion_mid_block": False,
        },
    ),
    Architecture(
        name="motion-adapter",
        class_name="MotionAdapter",
        tiny=_ADAPTER,
        published={
            "guoyww/animatediff-motion-adapter-v1-5-2": {},
            "guoyww/animatediff-motion-adapter-sdxl-beta": {
                "block_out_channels": (320, 640, 1280),
                "use_motion_mid_block": False,
            },
        },
    ),
    Architecture(
        name="motion-adapter-deeper",
        class_name="MotionAdapter",
        tiny={
            **_ADAPTER,
            "motion_transformer_layers_per_block": (2, 4),
            "motion_transformer_layers_per_mid_block": (2,),
            "conv_in_channels": 9,
        },
    ),
)
