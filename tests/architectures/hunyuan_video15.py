"""HunyuanVideo 1.5, whose published configs differ from the class's defaults in size and task only by name."""

from __future__ import annotations

from .row import Architecture

_TINY = {
    "in_channels": 9,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 4,
    "num_refiner_layers": 2,
    "mlp_ratio": 2.0,
    "text_embed_dim": 16,
    "text_embed_2_dim": 12,
    "image_embed_dim": 8,
    "rope_axes_dim": (4, 6, 6),
}

ROWS = (
    Architecture(
        name="hunyuan-video-1.5",
        class_name="HunyuanVideo15Transformer3DModel",
        tiny=_TINY,
        published={
            "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v": {"task_type": "t2v"},
            "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_t2v": {"task_type": "t2v", "target_size": 960},
        },
    ),
    Architecture(
        name="hunyuan-video-1.5-meanflow",
        class_name="HunyuanVideo15Transformer3DModel",
        tiny={**_TINY, "num_layers": 2, "use_meanflow": True},
    ),
)
