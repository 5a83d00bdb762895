"""A motion adapter by itself, and Stable Diffusion pipelines to plug it into, in miniature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from architectures import row_of
from diffusers import PNDMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from models import build, save
from tiny_clip import clip, clip_tokenizer
from tiny_trained import PICTURES, SDXL
from transformers import CLIPTextModelWithProjection

from modelgrow.surgery.selection import GENERATION_NAME

ROW = row_of("motion-adapter")
UNET: dict[str, Any] = {
    "block_out_channels": ROW.tiny["block_out_channels"],
    "layers_per_block": ROW.tiny["motion_layers_per_block"],
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
XL: dict[str, Any] = {name: value for name, value in SDXL.items() if name != "use_motion_mid_block"}
SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "steps_offset": 1,
}
"""Stable Diffusion's own, which is not what motion adapters are trained with."""


def save_adapter(folder: Path, **changes: Any) -> Path:
    return save(folder, ROW.class_name, {**ROW.tiny, **changes})


def save_stable_diffusion(folder: Path, **changes: Any) -> Path:
    pipeline: Any = StableDiffusionPipeline(
        vae=build("AutoencoderKL", PICTURES, seed=1),
        text_encoder=clip(16),
        tokenizer=clip_tokenizer(),
        unet=build("UNet2DConditionModel", {**UNET, **changes}, seed=3),
        scheduler=PNDMScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _saved(pipeline, folder)


def save_stable_diffusion_xl(folder: Path) -> Path:
    pipeline: Any = StableDiffusionXLPipeline(
        vae=build("AutoencoderKL", PICTURES, seed=1),
        text_encoder=clip(8),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(8, CLIPTextModelWithProjection),
        tokenizer_2=clip_tokenizer(),
        unet=build("UNet2DConditionModel", {**UNET, **XL}, seed=3),
        scheduler=PNDMScheduler(**SCHEDULE),
    )
    return _saved(pipeline, folder)


def _saved(pipeline: Any, folder: Path) -> Path:
    """With a generation.json that keeps its clips cheap."""
    pipeline.save_pretrained(folder)
    (folder / GENERATION_NAME).write_text(json.dumps({"num_inference_steps": 2}), encoding="utf-8")
    return folder
