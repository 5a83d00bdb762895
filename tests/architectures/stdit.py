"""Open-Sora 1.0."""

from __future__ import annotations

from .row import Architecture

_SHARED = {"in_channels": 4, "patch_size": [1, 2, 2], "mlp_ratio": 4.0, "pred_sigma": True}

ROWS = (
    Architecture(
        name="stdit",
        class_name="STDiTTransformer3DModel",
        tiny={
            **_SHARED,
            "input_size": [3, 6, 8],
            "hidden_size": 24,
            "num_heads": 2,
            "depth": 4,
            "caption_channels": 16,
            "model_max_length": 8,
            "space_scale": 0.5,
        },
        published={
            "hpcai-tech/Open-Sora": {
                **_SHARED,
                "input_size": [16, 32, 32],
                "hidden_size": 1152,
                "num_heads": 16,
                "depth": 28,
                "caption_channels": 4096,
                "model_max_length": 120,
                "space_scale": 0.5,
                "time_scale": 1.0,
            }
        },
    ),
)
