"""A Kandinsky 5 pipeline in miniature: stock classes, every weight random, built and not saved."""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, Kandinsky5I2VPipeline, Kandinsky5T2VPipeline
from models import build, noisy
from tiny_clip import clip, clip_tokenizer
from tiny_pipelines import HUNYUAN_VAE
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

OPTIONS: dict[str, Any] = {"num_frames": 9, "height": 32, "width": 32, "guidance_scale": 1.0}
TRANSFORMER: dict[str, Any] = {
    "in_visual_dim": 4,
    "out_visual_dim": 4,
    "in_text_dim": 16,
    "in_text_dim2": 8,
    "time_dim": 16,
    "model_dim": 24,
    "ff_dim": 32,
    "num_text_blocks": 1,
    "num_visual_blocks": 2,
    "axes_dims": (4, 4, 4),
    "visual_cond": True,
}
WORDS = ("a", "red", "blue", "circle", "square", "moves", "right", "left")
SPECIAL = ("<pad>", "<unk>", "<|im_start|>", "<|im_end|>")


def tokenizer() -> Any:
    """One token per word, sign and line break: 131 before a prompt, of which the pipeline cuts off 128."""
    vocabulary = {word: place for place, word in enumerate((*SPECIAL, *WORDS))}
    found: Any = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Split(Regex(r"<\|\w+\|>|\w+|[^\w ]"), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=found, pad_token="<pad>", unk_token="<unk>", padding_side="right", model_max_length=1024
    )


def qwen() -> Any:
    text = {
        "vocab_size": 16,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "eos_token_id": None,
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
    }
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": 16}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=14, video_token_id=15)
    return noisy(Qwen2_5_VLForConditionalGeneration(config), 2)


def components(**transformer: Any) -> dict[str, Any]:
    """Of either video pipeline. Any key of the transformer's config may be given."""
    return {
        "text_encoder": qwen(),
        "tokenizer": tokenizer(),
        "text_encoder_2": clip(8),
        "tokenizer_2": clip_tokenizer(),
        "vae": build("AutoencoderKLHunyuanVideo", HUNYUAN_VAE, seed=1),
        "transformer": build("Kandinsky5Transformer3DModel", {**TRANSFORMER, **transformer}),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=5.0),
    }


def kandinsky5() -> Any:
    return Kandinsky5T2VPipeline(**components())


def kandinsky5_i2v() -> Any:
    return Kandinsky5I2VPipeline(**components())
