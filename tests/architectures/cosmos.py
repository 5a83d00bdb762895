"""Cosmos 1, Predict 2 and 2.5, Transfer 2.5.

The published models also take a padding mask, which diffusers resizes with torchvision; the tiny ones do without.
"""

from __future__ import annotations

from .row import Architecture

_TINY = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 4,
    "mlp_ratio": 2.0,
    "text_embed_dim": 16,
    "adaln_lora_dim": 4,
    "max_size": (8, 16, 16),
    "concat_padding_mask": False,
    "extra_pos_embed_type": None,
}
_COSMOS2_2B = {
    "in_channels": 16,
    "num_attention_heads": 16,
    "num_layers": 28,
    "rope_scale": (1.0, 4.0, 4.0),
    "extra_pos_embed_type": None,
}
_COSMOS2_14B = {**_COSMOS2_2B, "num_attention_heads": 40, "num_layers": 36}
_PREDICT25 = {
    "in_channels": 17,
    "rope_scale": (1.0, 3.0, 3.0),
    "use_crossattn_projection": True,
    "crossattn_proj_in_channels": 100352,
    "encoder_hidden_states_channels": 1024,
}
_POSITIONS = "every block adds the learned positions"

ROWS = (
    Architecture(
        name="cosmos2",
        class_name="CosmosTransformer3DModel",
        tiny=_TINY,
        published={
            "nvidia/Cosmos-Predict2-2B-Text2Image": _COSMOS2_2B,
            "nvidia/Cosmos-Predict2-14B-Text2Image": _COSMOS2_14B,
            "nvidia/Cosmos-Predict2-2B-Video2World": {
                **_COSMOS2_2B,
                "in_channels": 17,
                "rope_scale": (1.0, 3.0, 3.0),
            },
            "nvidia/Cosmos-Predict2-14B-Video2World": {
                **_COSMOS2_14B,
                "in_channels": 17,
                "rope_scale": (20 / 24, 2.0, 2.0),
            },
        },
    ),
    Architecture(
        name="cosmos2.5",
        class_name="CosmosTransformer3DModel",
        tiny={
            **_TINY,
            "num_layers": 2,
            "use_crossattn_projection": True,
            "crossattn_proj_in_channels": 12,
            "encoder_hidden_states_channels": 16,
        },
        published={
            "nvidia/Cosmos-Predict2.5-2B": {**_COSMOS2_2B, **_PREDICT25},
            "nvidia/Cosmos-Predict2.5-14B": {**_COSMOS2_14B, **_PREDICT25},
        },
    ),
    Architecture(
        name="cosmos2.5-transfer",
        class_name="CosmosTransformer3DModel",
        tiny={
            **_TINY,
            "controlnet_block_every_n": 2,
            "img_context_dim_in": 12,
            "img_context_num_tokens": 5,
            "img_context_dim_out": 32,
        },
        refused={
            ("transformer_blocks", "prefix"): "at no equal distances",
            ("transformer_blocks", "suffix"): "at no equal distances",
        },
    ),
    Architecture(
        name="cosmos1",
        class_name="CosmosTransformer3DModel",
        tiny={**_TINY, "extra_pos_embed_type": "learnable"},
        published={
            "nvidia/Cosmos-1.0-Diffusion-7B-Text2World": {},
            "nvidia/Cosmos-1.0-Diffusion-14B-Video2World": {
                "in_channels": 17,
                "num_attention_heads": 40,
                "num_layers": 36,
                "rope_scale": (2.0, 2.0, 2.0),
            },
        },
        refused={("transformer_blocks", mode): _POSITIONS for mode in ("insert", "prefix", "suffix")},
    ),
)
