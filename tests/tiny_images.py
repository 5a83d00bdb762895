"""Whole text-to-image pipelines in miniature, of the classes the ExVideo paper made its first frames with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanDiTPipeline,
    StableDiffusion3Pipeline,
)
from models import build, noisy
from tiny_pipelines import text_encoder as t5_encoder
from tiny_pipelines import tokenizer as t5_tokenizer
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

VAE: dict[str, Any] = {
    "block_out_channels": (8,) * 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "norm_num_groups": 4,
}
WORDS = ["a", "red", "blue", "circle", "square", "moves", "right", "left"]


def clip_text(seed: int) -> Any:
    config = CLIPTextConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=8,
        bos_token_id=0,
        eos_token_id=1,
    )
    return noisy(CLIPTextModelWithProjection(config), seed)


def clip_tokenizer() -> Any:
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, **{f"{word}</w>": i + 2 for i, word in enumerate(WORDS)}}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def bert_tokenizer() -> Any:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=77)


def save_tiny_sd3(folder: Path) -> Path:
    """Write a StableDiffusion3Pipeline, which makes pictures of 32 x 32."""
    transformer = {
        "sample_size": 4,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 1,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 16,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 16,
        "pos_embed_max_size": 16,
    }
    pipeline: Any = StableDiffusion3Pipeline(
        transformer=build("SD3Transformer2DModel", transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=noisy(AutoencoderKL(**VAE, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0), 1),
        text_encoder=clip_text(2),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(3),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(),
        tokenizer_3=t5_tokenizer(),
    )
    pipeline.save_pretrained(folder)
    return _with_settings(folder, num_inference_steps=2)


def save_tiny_hunyuan_dit(folder: Path) -> Path:
    """Write a HunyuanDiTPipeline, which makes pictures of 32 x 32."""
    transformer = {
        "sample_size": 4,
        "patch_size": 2,
        "in_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "cross_attention_dim": 16,
        "cross_attention_dim_t5": 16,
        "pooled_projection_dim": 16,
        "hidden_size": 16,
        "text_len": 77,
        "text_len_t5": 256,
        "activation_fn": "gelu-approximate",
    }
    bert = BertConfig(
        vocab_size=16,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
    )
    pipeline: Any = HunyuanDiTPipeline(
        transformer=build("HunyuanDiT2DModel", transformer),
        scheduler=DDPMScheduler(prediction_type="v_prediction", beta_schedule="scaled_linear"),
        vae=noisy(AutoencoderKL(**VAE), 1),
        text_encoder=noisy(BertModel(bert), 2),
        tokenizer=bert_tokenizer(),
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return _with_settings(folder, num_inference_steps=2, height=32, width=32, use_resolution_binning=False)


def _with_settings(folder: Path, **settings: Any) -> Path:
    (folder / "generation.json").write_text(json.dumps(settings))
    return folder
