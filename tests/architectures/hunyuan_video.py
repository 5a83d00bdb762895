"""HunyuanVideo; the text-to-video model's published config is the class's defaults."""

from __future__ import annotations

from .row import Architecture

_TINY = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 4,
    "num_single_layers": 4,
    "num_refiner_layers": 2,
    "mlp_ratio": 2.0,
    "patch_size": 2,
    "text_embed_dim": 16,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 6, 6),
}

ROWS = (
    Architecture(
        name="hunyuan-video",
        class_name="HunyuanVideoTransformer3DModel",
        tiny=_TINY,
        published={"hunyuanvideo-community/HunyuanVideo": {}},
    ),
    Architecture(
        name="hunyuan-video-token-replace",
        class_name="HunyuanVideoTransformer3DModel",
        tiny={**_TINY, "num_layers": 2, "num_single_layers": 2, "image_condition_type": "token_replace"},
        published={"hunyuanvideo-community/HunyuanVideo-I2V": {"image_condition_type": "token_replace"}},
    ),
    Architecture(
        name="hunyuan-video-latent-concat",
        class_name="HunyuanVideoTransformer3DModel",
        tiny={
            **_TINY,
            "in_channels": 9,
            "num_layers": 2,
            "num_single_layers": 2,
            "guidance_embeds": False,
            "image_condition_type": "latent_concat",
        },
        published={
            "hunyuanvideo-community/HunyuanVideo-I2V-33ch": {
                "in_channels": 33,
                "guidance_embeds": False,
                "image_condition_type": "latent_concat",
            }
        },
    ),
)
