"""EasyAnimate: all blocks multimodal, only some of them, and a norm after the feed-forward."""

from __future__ import annotations

from .row import Architecture

_TINY = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "patch_size": 2,
    "num_layers": 4,
    "mmdit_layers": 4,
    "time_embed_dim": 8,
    "text_embed_dim": 16,
    "add_norm_text_encoder": True,
}
_V51 = {"in_channels": 16, "out_channels": 16, "patch_size": 2, "add_norm_text_encoder": True}

ROWS = (
    Architecture(
        name="easyanimate",
        class_name="EasyAnimateTransformer3DModel",
        tiny=_TINY,
        published={
            "alibaba-pai/EasyAnimateV5.1-12b-zh": _V51,
            "alibaba-pai/EasyAnimateV5.1-12b-zh-InP": {**_V51, "in_channels": 33},
        },
    ),
    Architecture(
        name="easyanimate-mixed",
        class_name="EasyAnimateTransformer3DModel",
        tiny={**_TINY, "in_channels": 9, "mmdit_layers": 2, "add_norm_text_encoder": False, "text_embed_dim_t5": 12},
    ),
    Architecture(
        name="easyanimate-after-norm",
        class_name="EasyAnimateTransformer3DModel",
        tiny={**_TINY, "after_norm": True, "mmdit_layers": 1000},
    ),
    Architecture(
        name="easyanimate-mixed-after-norm",
        class_name="EasyAnimateTransformer3DModel",
        tiny={**_TINY, "after_norm": True, "mmdit_layers": 1},
    ),
)
