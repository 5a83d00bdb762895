"""A whole text-to-video pipeline in miniature: stock classes, every weight random, a few hundred kilobytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, WanPipeline
from models import build, noisy
from transformers import T5Config, T5EncoderModel, T5Tokenizer, UMT5Config, UMT5EncoderModel

from modelgrow.pipelines.models import align

HUNYUAN_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "down_block_types": ("HunyuanVideoDownBlock3D",) * 4,
    "up_block_types": ("HunyuanVideoUpBlock3D",) * 4,
    "block_out_channels": (8, 8, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
VAE = {
    "base_dim": 8,
    "dim_mult": [1, 2],
    "temperal_downsample": [True],
    "num_res_blocks": 1,
    "z_dim": 4,
    "patch_size": 4,
    "in_channels": 48,
    "out_channels": 48,
    "scale_factor_temporal": 2,
    "scale_factor_spatial": 8,
    "latents_mean": [0.1, -0.1, 0.0, 0.2],
    "latents_std": [1.0, 0.9, 1.1, 1.2],
}
TRANSFORMER = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 64,
}
TEXT = UMT5Config(
    vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, is_encoder_decoder=False, use_cache=False
)


T5 = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, is_encoder_decoder=False)


def t5() -> Any:
    """T5's encoder, 16 wide, for `tokenizer`."""
    return noisy(T5EncoderModel(T5), 2)


def text_encoder() -> Any:
    """UMT5's, which Wan has."""
    return noisy(UMT5EncoderModel(TEXT), 2, scale=0.5)


def tokenizer() -> T5Tokenizer:
    words = ["a", "red", "blue", "circle", "square", "moves", "right", "left"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    vocabulary += [("\u2581" + word, -1.0) for word in words]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=32)


def save_tiny_wan(folder: Path) -> Path:
    """Write a WanPipeline. It makes 2k + 1 frames of sizes that 16 divides."""
    pipeline: Any = WanPipeline(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=build("AutoencoderKLWan", VAE, seed=1),
        transformer=build("WanTransformer3DModel", TRANSFORMER),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipeline.save_pretrained(folder)
    return folder


def load_aligned(folder: Path, dtype: torch.dtype | None = None) -> Any:
    """A pipeline as diffusers loads it, with weights where CPU kernels are alike for equal ones."""
    pipeline: Any = DiffusionPipeline
    pipeline = pipeline.from_pretrained(str(folder), **({"dtype": dtype} if dtype else {}))
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            align(part)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_clip(pipeline: Any, prompt: str) -> torch.Tensor:
    """Five frames of 32 x 32 in two steps, always from the same noise."""
    frames: torch.Tensor = pipeline(
        prompt,
        height=32,
        width=32,
        num_frames=5,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).frames
    return frames
