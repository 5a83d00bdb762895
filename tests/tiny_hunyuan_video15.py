"""HunyuanVideo 1.5 pipelines in miniature: stock classes, every weight random, built and not saved."""

from __future__ import annotations

from string import ascii_lowercase
from typing import Any

from diffusers import (
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
)
from models import build, noisy
from transformers import (
    ByT5Tokenizer,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    Qwen2Tokenizer,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
)

OPTIONS: dict[str, Any] = {"num_frames": 9, "height": 32, "width": 32}
VAE: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 1,
    "spatial_compression_ratio": 4,
    "temporal_compression_ratio": 4,
    "scaling_factor": 0.7,
}
TRANSFORMER: dict[str, Any] = {
    "in_channels": 9,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "mlp_ratio": 2.0,
    "text_embed_dim": 16,
    "text_embed_2_dim": 12,
    "image_embed_dim": 8,
    "rope_axes_dim": (4, 6, 6),
    "target_size": 32,
}
TEMPLATE = "{{ '<|im_start|>' * 108 }}{{ messages[1]['content'] }}<|im_end|>"
"""Of the real one's length, which the pipeline cuts off before a prompt."""


def qwen_tokenizer() -> Any:
    """Letter by letter."""
    pieces = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "\u0120", '"', *ascii_lowercase)
    found = Qwen2Tokenizer(vocab={piece: place for place, piece in enumerate(pieces)}, merges=[])
    found.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    found.chat_template = TEMPLATE
    return found


def qwen() -> Any:
    config = Qwen2_5_VLTextConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=None,
        rope_scaling={"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
    )
    return noisy(Qwen2_5_VLTextModel(config), 2)


def byt5() -> Any:
    config = T5Config(vocab_size=384, d_model=12, d_kv=6, d_ff=16, num_layers=1, num_heads=2, is_encoder_decoder=False)
    return noisy(T5EncoderModel(config), 3)


def siglip() -> Any:
    config = SiglipVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    return noisy(SiglipVisionModel(config), 4)


def components(**transformer: Any) -> dict[str, Any]:
    """Of the text-to-video pipeline, without guidance. Any key of the transformer's config may be given."""
    return {
        "text_encoder": qwen(),
        "tokenizer": qwen_tokenizer(),
        "text_encoder_2": byt5(),
        "tokenizer_2": ByT5Tokenizer(),
        "vae": build("AutoencoderKLHunyuanVideo15", VAE, seed=1),
        "transformer": build("HunyuanVideo15Transformer3DModel", {**TRANSFORMER, **transformer}),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=5.0),
        "guider": ClassifierFreeGuidance(guidance_scale=1.0),
    }


def hunyuan_video15(**transformer: Any) -> Any:
    pipeline = HunyuanVideo15Pipeline(**components(**transformer))
    pipeline.vae.enable_slicing()  # diffusers can't decode two clips in one call of this VAE
    return pipeline


def hunyuan_video15_i2v() -> Any:
    """It makes clips of 32 x 32."""
    return HunyuanVideo15ImageToVideoPipeline(
        **components(task_type="i2v"),
        image_encoder=siglip(),
        feature_extractor=SiglipImageProcessorPil(size={"height": 32, "width": 32}),
    )
