"""Tiny pipelines of families other than Wan: stock classes, every weight random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from architectures import ARCHITECTURES
from models import build
from tiny_pipelines import T5, tokenizer
from transformers import T5EncoderModel

TINY = {row.name: row for row in ARCHITECTURES}
COG_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("CogVideoXDownBlock3D",) * 4,
    "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "block_out_channels": (8, 8, 8, 8),
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "temporal_compression_ratio": 4,
}
LTX_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (8, 8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8, 8),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
    "spatio_temporal_scaling": (True, True, False, False),
    "decoder_spatio_temporal_scaling": (True, True, False, False),
    "decoder_inject_noise": (False, False, False, False, False),
    "upsample_residual": (False, False, False, False),
    "upsample_factor": (1, 1, 1, 1),
    "timestep_conditioning": False,
    "patch_size": 1,
    "patch_size_t": 1,
    "encoder_causal": True,
    "decoder_causal": False,
}
LATTE = {
    "sample_size": 8,
    "video_length": 4,
    "num_layers": 1,
    "patch_size": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 3,
    "caption_channels": 16,
    "in_channels": 4,
    "cross_attention_dim": 24,
    "out_channels": 8,
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
}


@dataclass(frozen=True, kw_only=True)
class Family:
    pipeline: str
    transformer: tuple[str, Mapping[str, Any]]
    vae: tuple[str, Mapping[str, Any]]
    scheduler: str
    options: Mapping[str, Any]
    shape: tuple[int, ...]
    fps: int


def _cogvideox(row: str) -> Family:
    return Family(
        pipeline="CogVideoXPipeline",
        transformer=(TINY[row].class_name, {**TINY[row].tiny, "max_text_seq_length": 226}),
        vae=("AutoencoderKLCogVideoX", COG_VAE),
        scheduler="CogVideoXDDIMScheduler",
        options={"num_frames": 9, "height": 48, "width": 64},
        shape=(9, 48, 64, 3),
        fps=8,
    )


FAMILIES = {
    "cogvideox": _cogvideox("cogvideox-2b"),
    "ltx": Family(
        pipeline="LTXPipeline",
        transformer=(TINY["ltx"].class_name, TINY["ltx"].tiny),
        vae=("AutoencoderKLLTXVideo", LTX_VAE),
        scheduler="FlowMatchEulerDiscreteScheduler",
        options={"num_frames": 9, "height": 32, "width": 64},
        shape=(9, 32, 64, 3),
        fps=25,
    ),
    "cogvideox-rope": _cogvideox("cogvideox-5b"),
    "latte": Family(
        pipeline="LattePipeline",
        transformer=("LatteTransformer3DModel", LATTE),
        vae=("AutoencoderKL", {"block_out_channels": (8,), "norm_num_groups": 2}),
        scheduler="DDIMScheduler",
        options={"num_frames": 4, "height": 16, "width": 16},
        shape=(4, 16, 16, 3),
        fps=8,
    ),
}


def build_pipeline(family: Family, folder: Path) -> Path:
    torch.manual_seed(0)
    scheduler: Any = getattr(diffusers, family.scheduler)
    pipeline: Any = getattr(diffusers, family.pipeline)(
        tokenizer=tokenizer(),
        text_encoder=T5EncoderModel(T5).eval(),
        vae=build(*family.vae, seed=1),
        transformer=build(*family.transformer),
        scheduler=scheduler(),
    )
    pipeline.save_pretrained(folder)
    return folder
