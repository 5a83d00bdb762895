"""CogVideoX."""

from __future__ import annotations

from .row import Architecture

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

ROWS = (
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
)
