"""LTX-2 and what came after it."""

from __future__ import annotations

from .row import Architecture

_TINY = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "cross_attention_dim": 32,
    "audio_in_channels": 6,
    "audio_out_channels": 6,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 8,
    "audio_cross_attention_dim": 16,
    "num_layers": 4,
    "caption_channels": 12,
}
_GATED = {
    "gated_attn": True,
    "cross_attn_mod": True,
    "audio_gated_attn": True,
    "audio_cross_attn_mod": True,
    "rope_type": "split",
    "use_prompt_embeddings": False,
    "perturbed_attn": True,
}

ROWS = (
    Architecture(
        name="ltx2",
        class_name="LTX2VideoTransformer3DModel",
        tiny=_TINY,
        published={"Lightricks/LTX-2": {"rope_type": "split"}},
    ),
    Architecture(
        name="ltx2-gated",
        class_name="LTX2VideoTransformer3DModel",
        tiny={**_TINY, **_GATED, "num_layers": 2},
        published={"diffusers/LTX-2.3-Diffusers": _GATED},
    ),
    Architecture(
        name="ltx2-keyframes",
        class_name="LTX2VideoTransformer3DModel",
        tiny={
            **_TINY,
            **_GATED,
            "num_layers": 2,
            "ff_bias": False,
            "use_prompt_adaln_single": False,
            "use_keyframes_abs_pos_embedding": True,
        },
    ),
)
