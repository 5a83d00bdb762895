"""Kandinsky 5.0."""

from __future__ import annotations

from .row import Architecture

_TINY = {
    "in_visual_dim": 4,
    "out_visual_dim": 4,
    "in_text_dim": 16,
    "in_text_dim2": 8,
    "time_dim": 16,
    "model_dim": 24,
    "ff_dim": 32,
    "num_text_blocks": 2,
    "num_visual_blocks": 4,
    "axes_dims": (4, 4, 4),
}
_K5 = {"in_visual_dim": 16, "out_visual_dim": 16, "visual_cond": True}

ROWS = (
    Architecture(
        name="kandinsky5",
        class_name="Kandinsky5Transformer3DModel",
        tiny={**_TINY, "visual_cond": True},
        published={
            "kandinskylab/Kandinsky-5.0-T2V-Lite-sft-5s-Diffusers": {**_K5, "model_dim": 1792, "ff_dim": 7168},
            "kandinskylab/Kandinsky-5.0-T2V-Pro-sft-5s-Diffusers": {
                **_K5,
                "time_dim": 1024,
                "model_dim": 4096,
                "ff_dim": 16384,
                "num_text_blocks": 4,
                "num_visual_blocks": 60,
                "axes_dims": (32, 48, 48),
            },
        },
    ),
    Architecture(
        name="kandinsky5-no-condition",
        class_name="Kandinsky5Transformer3DModel",
        tiny={**_TINY, "num_visual_blocks": 2},
    ),
)
