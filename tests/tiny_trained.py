"""Tiny pipelines of the families that train: stock classes, every weight random, built and not saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from architectures import row_of
from diffusers import (
    AnimateDiffPipeline,
    AnimateDiffSDXLPipeline,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    HunyuanVideoPipeline,
    LattePipeline,
    MochiPipeline,
    PixArtSigmaPipeline,
    SanaVideoPipeline,
    StableDiffusion3Pipeline,
)
from models import build, noisy
from tiny_allegro import OPTIONS as ALLEGRO
from tiny_allegro import allegro
from tiny_clip import clip, clip_tokenizer
from tiny_easyanimate import OPTIONS as EASYANIMATE
from tiny_easyanimate import easyanimate
from tiny_hunyuan_video15 import OPTIONS as HUNYUAN_VIDEO15
from tiny_hunyuan_video15 import hunyuan_video15
from tiny_ltx2 import OPTIONS as LTX2
from tiny_ltx2 import ltx2
from tiny_pipelines import HUNYUAN_VAE, t5, tokenizer
from tiny_pipelines import VAE as WAN_VAE
from transformers import (
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    LlamaConfig,
    LlamaModel,
)

PICTURES: dict[str, Any] = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "scaling_factor": 0.3,
}
SHIFTED = {**PICTURES, "shift_factor": 0.1}
SDXL: dict[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 8,
    "use_motion_mid_block": False,
}
"""Six numbers of the clip's size, and a pooled prompt, beside the timestep."""
MOCHI_VAE: dict[str, Any] = {
    "latent_channels": 12,
    "encoder_block_out_channels": (32, 32, 32, 32),
    "decoder_block_out_channels": (32, 32, 32, 32),
    "layers_per_block": (1, 1, 1, 1, 1),
    "latents_mean": (0.1, -0.1, 0.2) * 4,
    "latents_std": (0.9, 1.1, 1.2) * 4,
    "scaling_factor": 0.5,
}


def model_of(row: str, **changes: Any) -> Any:
    architecture = row_of(row)
    return build(architecture.class_name, {**architecture.tiny, **changes})


def animatediff() -> Any:
    return AnimateDiffPipeline(
        vae=build("AutoencoderKL", PICTURES, seed=1),
        text_encoder=clip(16),
        tokenizer=clip_tokenizer(),
        unet=model_of("unet-motion"),
        motion_adapter=None,
        scheduler=DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )


def animatediff_sdxl() -> Any:
    """It can't be loaded again without its motion adapter, which holds what its UNet holds too."""
    unet, adapter = model_of("unet-motion", **SDXL), model_of("motion-adapter", use_motion_mid_block=False)
    unet.load_motion_modules(adapter)
    return AnimateDiffSDXLPipeline(
        vae=build("AutoencoderKL", PICTURES, seed=1),
        text_encoder=clip(8),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(8, CLIPTextModelWithProjection),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        motion_adapter=adapter,
        scheduler=DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )


def latte() -> Any:
    return LattePipeline(
        tokenizer=tokenizer(),
        text_encoder=t5(),
        vae=build("AutoencoderKL", PICTURES, seed=1),
        transformer=model_of("latte"),
        scheduler=DDIMScheduler(clip_sample=False),
    )


def mochi() -> Any:
    return MochiPipeline(
        tokenizer=tokenizer(),
        text_encoder=t5(),
        vae=build("AutoencoderKLMochi", MOCHI_VAE, seed=1),
        transformer=model_of("mochi", in_channels=12),
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    )


def hunyuan_video() -> Any:
    llama = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=512,
    )
    return HunyuanVideoPipeline(
        text_encoder=noisy(LlamaModel(llama), 2),
        tokenizer=tokenizer(),
        text_encoder_2=clip(8),
        tokenizer_2=clip_tokenizer(),
        vae=build("AutoencoderKLHunyuanVideo", HUNYUAN_VAE, seed=1),
        transformer=model_of("hunyuan-video", guidance_embeds=True),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def sana_video() -> Any:
    gemma = Gemma2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=1024,
    )
    return SanaVideoPipeline(
        text_encoder=noisy(Gemma2Model(gemma), 2),
        tokenizer=tokenizer(),
        vae=build("AutoencoderKLWan", WAN_VAE, seed=1),
        transformer=model_of("sana-video"),
        scheduler=DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0),
    )


def sd3() -> Any:
    return StableDiffusion3Pipeline(
        transformer=model_of("sd3", joint_attention_dim=16, pooled_projection_dim=16),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=build("AutoencoderKL", SHIFTED, seed=1),
        text_encoder=clip(8, CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(8, CLIPTextModelWithProjection),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=tokenizer(),
    )


def flux() -> Any:
    return FluxPipeline(
        transformer=model_of("flux-guidance", in_channels=16, joint_attention_dim=16),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=build("AutoencoderKL", SHIFTED, seed=1),
        text_encoder=clip(8),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(),
    )


def pixart() -> Any:
    return PixArtSigmaPipeline(
        tokenizer=tokenizer(),
        text_encoder=t5(),
        vae=build("AutoencoderKL", PICTURES, seed=1),
        transformer=model_of("pixart-sigma"),
        scheduler=DDIMScheduler(clip_sample=False),
    )


BUILDERS: dict[str, Callable[[], Any]] = {
    "allegro": allegro,
    "animatediff": animatediff,
    "animatediff-sdxl": animatediff_sdxl,
    "easyanimate": easyanimate,
    "flux": flux,
    "hunyuan-video": hunyuan_video,
    "hunyuan-video-1.5": hunyuan_video15,
    "latte": latte,
    "ltx2": ltx2,
    "mochi": mochi,
    "pixart": pixart,
    "sana-video": sana_video,
    "sd3": sd3,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "allegro": ALLEGRO,
    "animatediff": {"num_frames": 4, "height": 16, "width": 16, "guidance_scale": 1.0},
    "animatediff-sdxl": {"num_frames": 4, "height": 16, "width": 16, "guidance_scale": 1.0},
    "easyanimate": EASYANIMATE,
    "flux": {"height": 16, "width": 16},
    "hunyuan-video": {"num_frames": 9, "height": 32, "width": 32},
    "hunyuan-video-1.5": HUNYUAN_VIDEO15,
    "latte": {"video_length": 4, "height": 16, "width": 16, "guidance_scale": 1.0},
    "ltx2": LTX2,
    "mochi": {"num_frames": 7, "height": 32, "width": 32, "guidance_scale": 1.0},
    "pixart": {"height": 16, "width": 16, "guidance_scale": 1.0, "use_resolution_binning": False},
    "sd3": {"height": 16, "width": 16, "guidance_scale": 1.0},
    "sana-video": {"frames": 5, "height": 32, "width": 32, "guidance_scale": 1.0, "use_resolution_binning": False},
}
"""What each is called with, besides prompts and steps; no guidance, so that each step is one call of the model."""


def tiny(name: str) -> Any:
    with torch.random.fork_rng():
        pipeline = BUILDERS[name]()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
