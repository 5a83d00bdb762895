"""Which family a folder goes to, and what is refused before anything is loaded."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from architectures import ARCHITECTURES

from modelgrow.surgery import TrainError
from modelgrow.train.families import (
    cogvideox,
    cogvideox_image,
    family_of,
    hunyuan_image,
    hunyuan_llava,
    hunyuan_video,
    wan,
    wan_animate,
    wan_first_frame,
    wan_image,
)

PUBLISHED: dict[str, dict[str, Any]] = {
    model: dict(config) for row in ARCHITECTURES for model, config in row.published.items()
}
WAN, COGVIDEOX, HUNYUAN = "WanTransformer3DModel", "CogVideoXTransformer3DModel", "HunyuanVideoTransformer3DModel"


@pytest.mark.parametrize(
    ("class_name", "model", "index", "family"),
    [
        (WAN, "Wan-AI/Wan2.1-T2V-14B-Diffusers", {"_class_name": "WanPipeline"}, wan),
        (WAN, "Wan-AI/Wan2.1-T2V-14B-Diffusers", {"_class_name": "WanVideoToVideoPipeline"}, wan),
        (WAN, "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", {"_class_name": "WanImageToVideoPipeline"}, wan_image),
        (WAN, "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", {"_class_name": "GrownWanImageToVideoPipeline"}, wan_image),
        (
            WAN,
            "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            {"_class_name": "WanPipeline", "expand_timesteps": True},
            wan_first_frame,
        ),
        (
            WAN,
            "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            {"_class_name": "WanImageToVideoPipeline", "expand_timesteps": True},
            wan_first_frame,
        ),
        (
            "GrownWanAnimateTransformer3DModel",
            "Wan-AI/Wan2.2-Animate-14B-Diffusers",
            {"_class_name": "WanAnimatePipeline"},
            wan_animate,
        ),
        (COGVIDEOX, "zai-org/CogVideoX1.5-5B", {"_class_name": "CogVideoXPipeline"}, cogvideox),
        (COGVIDEOX, "zai-org/CogVideoX1.5-5B-I2V", {"_class_name": "CogVideoXImageToVideoPipeline"}, cogvideox_image),
        (COGVIDEOX, "zai-org/CogVideoX-5b-I2V", {"_class_name": "CogVideoXImageToVideoPipeline"}, cogvideox_image),
        (HUNYUAN, "hunyuanvideo-community/HunyuanVideo", {"_class_name": "HunyuanVideoPipeline"}, hunyuan_video),
    ],
)
def test_published_models(class_name: str, model: str, index: dict[str, Any], family: ModuleType) -> None:
    assert family_of(class_name, PUBLISHED[model], index) is family


@pytest.mark.parametrize("model", ["HunyuanVideo-I2V", "HunyuanVideo-I2V-33ch"])
def test_hunyuan_video_from_a_picture(model: str) -> None:
    for name in ("HunyuanVideoImageToVideoPipeline", "GrownHunyuanVideoImageToVideoPipeline"):
        config = {"out_channels": 16, **PUBLISHED[f"hunyuanvideo-community/{model}"]}
        assert family_of(HUNYUAN, config, {"_class_name": name}) is hunyuan_llava


def test_skyreels() -> None:
    index = {"_class_name": "HunyuanSkyreelsImageToVideoPipeline"}
    assert family_of(HUNYUAN, {"in_channels": 32, "out_channels": 16}, index) is hunyuan_image


def test_without_a_config_it_is_text_to_video() -> None:
    assert family_of(WAN) is wan
    assert family_of(COGVIDEOX) is cogvideox


@pytest.mark.parametrize(
    ("class_name", "config", "index", "error"),
    [
        (
            WAN,
            {"in_channels": 36, "out_channels": 16},
            {"_class_name": "WanPipeline"},
            "the transformer reads 36 channels, 16 of noise and the others of a picture, but model_index.json says "
            "WanPipeline; write WanImageToVideoPipeline there",
        ),
        (
            WAN,
            {"in_channels": 16, "out_channels": 16},
            {"_class_name": "WanImageToVideoPipeline"},
            "reads 16 channels, which is text to video, but model_index.json says WanImageToVideoPipeline",
        ),
        (
            WAN,
            {"in_channels": 32, "out_channels": 16},
            {"_class_name": "LucyEditPipeline"},
            "reads 32 channels, in LucyEditPipeline; what can be trained here reads 16, and image to video 32 and one",
        ),
        (
            COGVIDEOX,
            {"in_channels": 32, "out_channels": 16},
            {"_class_name": "CogVideoXFunControlPipeline"},
            "reads 32 channels, in CogVideoXFunControlPipeline; what can be trained here reads 16 with",
        ),
        (
            COGVIDEOX,
            {"in_channels": 16, "out_channels": 16},
            {"_class_name": "CogVideoXImageToVideoPipeline"},
            "reads 16 channels, in CogVideoXImageToVideoPipeline",
        ),
        (
            HUNYUAN,
            {"in_channels": 32, "out_channels": 16},
            {"_class_name": "HunyuanVideoPipeline"},
            "reads 32 channels, in HunyuanVideoPipeline",
        ),
        (
            HUNYUAN,
            PUBLISHED["hunyuanvideo-community/HunyuanVideo-I2V"],
            {"_class_name": "HunyuanVideoPipeline"},
            "image_condition_type is token_replace, but model_index.json says HunyuanVideoPipeline",
        ),
        (
            HUNYUAN,
            PUBLISHED["hunyuanvideo-community/HunyuanVideo"],
            {"_class_name": "HunyuanVideoImageToVideoPipeline"},
            "image_condition_type is None, but model_index.json says HunyuanVideoImageToVideoPipeline",
        ),
        (
            HUNYUAN,
            {"in_channels": 32, "out_channels": 16, "image_condition_type": "latent_concat"},
            {"_class_name": "HunyuanVideoImageToVideoPipeline"},
            "reads 32 channels, .* reads 16 with token_replace, and 33 with latent_concat",
        ),
    ],
)
def test_refused(class_name: str, config: dict[str, Any], index: dict[str, Any], error: str) -> None:
    with pytest.raises(TrainError, match=error):
        family_of(class_name, config, index)
