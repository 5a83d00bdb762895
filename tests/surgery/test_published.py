"""Configs as Open-Sora's authors write them are told from others."""

from __future__ import annotations

from typing import Any

import pytest

from modelgrow.surgery.published import published_class

STDIT3, STDIT = "STDiT3Transformer3DModel", "STDiTTransformer3DModel"
THREE = {"depth": 28, "input_sq_size": 512, "skip_y_embedder": False, "qk_norm": True}
ONE = {"depth": 28, "space_scale": 0.5, "time_scale": 1.0}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "STDiT3", "depth": 28}, STDIT3),
        ({"architectures": ["STDiT3"]}, STDIT3),
        ({"model_type": "STDiT"}, STDIT),
        (THREE, STDIT3),
        (ONE, STDIT),
        ({**THREE, "model_type": "STDiT2"}, None),  # Open-Sora 1.1, which is another model
        ({**ONE, "architectures": ["Mine"]}, None),
        ({**THREE, "_class_name": "Mine"}, None),
        ({"model_type": "t5", "architectures": ["T5EncoderModel"]}, None),
        ({"depth": 28, "input_sq_size": 512}, None),
        ({"model_type": ["STDiT3"]}, None),
        ({}, None),
    ],
)
def test_by_hand(config: dict[str, Any], expected: str | None) -> None:
    assert published_class(config) == expected
