"""EasyAnimate's three pipelines in miniature: stock classes, every weight random, text read byte by byte."""

from __future__ import annotations

from typing import Any

from architectures import row_of
from diffusers import (
    EasyAnimateControlPipeline,
    EasyAnimateInpaintPipeline,
    EasyAnimatePipeline,
    FlowMatchEulerDiscreteScheduler,
)
from models import build, noisy
from tiny_llms import byte_tokenizer
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

OPTIONS: dict[str, Any] = {"num_frames": 5, "height": 32, "width": 32, "guidance_scale": 1.0}
VAE: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": (8, 8, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "scaling_factor": 0.7,
}
TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'][0]['text'] }}\n{% endfor %}"
QWEN: dict[str, Any] = {
    "text_config": {
        "vocab_size": 260,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4},
    },
    "vision_config": {"depth": 1, "embed_dim": 8, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 1, "patch_size": 4},
}


def chat_tokenizer() -> Any:
    tokenizer: Any = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def components(*, channels: int, **transformer: Any) -> dict[str, Any]:
    """Of a pipeline whose transformer reads `channels` channels."""
    row = row_of("easyanimate")
    vae = build("AutoencoderKLMagvit", VAE, seed=1)
    vae.register_to_config(cache_mag_vae=True)  # stands in the published config.json, and the pipeline asks for it
    return {
        "vae": vae,
        "text_encoder": noisy(Qwen2VLForConditionalGeneration(Qwen2VLConfig(**QWEN)), 2),
        "tokenizer": chat_tokenizer(),
        "transformer": build(row.class_name, {**row.tiny, "in_channels": channels, **transformer}),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=5.0),
    }


def easyanimate() -> Any:
    return EasyAnimatePipeline(**components(channels=4))


def inpaint(**transformer: Any) -> Any:
    """A mask of one channel, which is made smaller, or with `resize_inpaint_mask_directly=False` an encoded one."""
    direct = transformer.get("resize_inpaint_mask_directly", True)
    return EasyAnimateInpaintPipeline(**components(channels=9 if direct else 12, **transformer))


def control() -> Any:
    return EasyAnimateControlPipeline(**components(channels=12))
