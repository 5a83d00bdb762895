"""Tiny pipelines that make clips from a picture: stock classes, every weight random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXImageToVideoPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanSkyreelsImageToVideoPipeline,
    LTXImageToVideoPipeline,
    SanaImageToVideoPipeline,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
)
from models import build, noisy
from tiny_families import COG_VAE, LTX_VAE
from tiny_pipelines import TRANSFORMER as WAN
from tiny_pipelines import VAE as WAN_VAE
from tiny_pipelines import t5, text_encoder, tokenizer
from tiny_trained import hunyuan_video, model_of, sana_video
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

BOUNDARY = 0.9
CLIP = CLIPVisionConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, patch_size=112)


def wan(*, second: bool = False, clip: bool = True, config: dict[str, Any] | None = None, **options: Any) -> Any:
    """With a transformer that reads 4 channels of noise, 2 of a mask and 4 of a picture."""
    read = {**WAN, "in_channels": 10, **({"image_dim": 8, "added_kv_proj_dim": 24} if clip else {}), **(config or {})}
    return WanImageToVideoPipeline(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=build("AutoencoderKLWan", WAN_VAE, seed=1),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
        image_processor=CLIPImageProcessor() if clip else None,
        image_encoder=noisy(CLIPVisionModel(CLIP), 3) if clip else None,
        transformer=build("WanTransformer3DModel", read),
        transformer_2=build("WanTransformer3DModel", read, seed=5) if second else None,
        **options,
    )


def cogvideox(row: str, **config: Any) -> Any:
    return CogVideoXImageToVideoPipeline(
        tokenizer=tokenizer(),
        text_encoder=t5(),
        vae=build("AutoencoderKLCogVideoX", COG_VAE, seed=1),
        transformer=model_of(row, max_text_seq_length=226, **config),
        scheduler=CogVideoXDDIMScheduler(prediction_type="v_prediction"),
    )


def skyreels() -> Any:
    parts = dict(hunyuan_video().components)
    parts["transformer"] = model_of("hunyuan-video", in_channels=8, out_channels=4, guidance_embeds=True)
    return HunyuanSkyreelsImageToVideoPipeline(**parts)


def ltx() -> Any:
    return LTXImageToVideoPipeline(
        tokenizer=tokenizer(),
        text_encoder=t5(),
        vae=build("AutoencoderKLLTXVideo", LTX_VAE, seed=1),
        transformer=model_of("ltx"),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def sana() -> Any:
    parts = {**sana_video().components, "scheduler": FlowMatchEulerDiscreteScheduler(shift=8.0)}
    return SanaImageToVideoPipeline(**parts)


BUILDERS: dict[str, Callable[[], Any]] = {
    "wan-2.1": wan,
    "wan-flf2v": lambda: wan(config={"pos_embed_seq_len": 10}),
    "wan-2.2": lambda: wan(clip=False, second=True, boundary_ratio=BOUNDARY),
    "wan-ti2v": lambda: wan(clip=False, config={"in_channels": 4}, expand_timesteps=True),
    "cogvideox": lambda: cogvideox("cogvideox-5b-i2v", sample_height=6, sample_width=8),
    "cogvideox-1.5": lambda: cogvideox("cogvideox-1.5-i2v"),
    "skyreels": skyreels,
    "ltx": ltx,
    "sana": sana,
}
SIZES: dict[str, tuple[int, int, int]] = {
    **dict.fromkeys(("wan-2.1", "wan-flf2v", "wan-2.2", "wan-ti2v"), (5, 32, 48)),
    "cogvideox": (9, 48, 64),
    "cogvideox-1.5": (9, 48, 64),
    "skyreels": (9, 32, 32),
    "ltx": (9, 32, 64),
    "sana": (5, 32, 32),
}
"""Frames, height and width that each makes here."""


def tiny(name: str) -> Any:
    with torch.random.fork_rng():
        pipeline = BUILDERS[name]()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
