"""Open-Sora 1.2."""

from __future__ import annotations

from .row import Architecture

_TINY = {"hidden_size": 24, "num_heads": 2, "depth": 4, "caption_channels": 16, "model_max_length": 8}
_XL2 = {
    "input_sq_size": 512,
    "in_channels": 4,
    "patch_size": [1, 2, 2],
    "hidden_size": 1152,
    "depth": 28,
    "num_heads": 16,
    "mlp_ratio": 4.0,
    "pred_sigma": True,
    "qk_norm": True,
    "caption_channels": 4096,
    "model_max_length": 300,
}

ROWS = (
    Architecture(
        name="stdit3",
        class_name="STDiT3Transformer3DModel",
        tiny=_TINY,
        published={"hpcai-tech/OpenSora-STDiT-v3": _XL2},
    ),
)
