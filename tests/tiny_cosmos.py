"""Cosmos' pipelines in miniature: stock classes, every weight random, and no guardrail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from architectures import row_of
from diffusers import EDMEulerScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.models.controlnets import controlnet_cosmos
from diffusers.models.transformers import transformer_cosmos
from models import build, noisy
from tiny_easyanimate import TEMPLATE
from tiny_llms import byte_tokenizer
from tiny_pipelines import t5, tokenizer
from torch.nn.functional import interpolate
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from modelgrow.train import families

OPTIONS: dict[str, Any] = {"height": 32, "width": 32, "guidance_scale": 1.0}
FRAMES = {"text2world": 9, "video2world": 17, "text2image": 1, "video2world-2": 9, "predict-2.5": 9}
"""Of the clips of each pipeline; Cosmos 1's VAE joins 8 frames, the others' 4."""
VAE: dict[str, Any] = {
    "latent_channels": 4,
    "encoder_block_out_channels": (8, 8, 8, 8),
    "decode_block_out_channels": (8, 8, 8, 8),
    "attention_resolutions": (8,),
    "resolution": 64,
    "num_layers": 1,
    "latents_mean": [0.1, -0.1, 0.2, 0.0, 0.3, -0.2, 0.1, 0.1, 0.0, 0.2, 0.2, -0.3],
    "latents_std": [0.9, 1.1, 1.2, 1.0, 0.8, 0.7, 1.3, 1.1, 0.9, 1.0, 1.2, 0.9],
}
"""Mean and deviation of 4 channels in 3 latent frames."""
WAN_VAE: dict[str, Any] = {
    "base_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "temperal_downsample": [False, True, True],
    "num_res_blocks": 1,
    "z_dim": 4,
    "latents_mean": [0.1, -0.1, 0.0, 0.2],
    "latents_std": [1.0, 0.9, 1.1, 1.2],
}
QWEN: dict[str, Any] = {
    "text_config": {
        "vocab_size": 260,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4},
    },
    "vision_config": {"depth": 1, "hidden_size": 8, "num_heads": 1, "out_hidden_size": 8, "intermediate_size": 8},
}
"""Its states are 2 layers of 8, beside each other."""


class Trusting(torch.nn.Module):
    """In the place of Cosmos' guardrail, whose models are gigabytes."""

    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


def cosmos1(kind: str, **transformer: Any) -> Any:
    """Of `kind` "text2world" or "video2world", but without learned positions, with which depth does not grow."""
    pipeline = {"text2world": "CosmosTextToWorldPipeline", "video2world": "CosmosVideoToWorldPipeline"}[kind]
    return _made(
        pipeline,
        row="cosmos2",
        vae=("AutoencoderKLCosmos", VAE),
        scheduler=EDMEulerScheduler(sigma_data=0.5, final_sigmas_type="sigma_min"),
        in_channels=4 if kind == "text2world" else 5,
        **transformer,
    )


def cosmos2(kind: str, **transformer: Any) -> Any:
    """Of `kind` "text2image" or "video2world-2"."""
    pipeline = {"text2image": "Cosmos2TextToImagePipeline", "video2world-2": "Cosmos2VideoToWorldPipeline"}[kind]
    return _made(
        pipeline,
        row="cosmos2",
        vae=("AutoencoderKLWan", WAN_VAE),
        scheduler=FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        in_channels=4 if kind == "text2image" else 5,
        **transformer,
    )


def cosmos2_5() -> Any:
    language: Any = byte_tokenizer()
    language.chat_template = TEMPLATE
    return _made(
        "Cosmos2_5_PredictBasePipeline",
        row="cosmos2.5",
        vae=("AutoencoderKLWan", WAN_VAE),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            use_karras_sigmas=True,
            sigma_min=0.01,
            sigma_max=200.0,
        ),
        text_encoder=noisy(Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**QWEN)), 2),
        language=language,
        in_channels=5,
        crossattn_proj_in_channels=16,
    )


def with_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not it is installed: of torchvision one function is needed."""
    resize = SimpleNamespace(resize=lambda mask, size, interpolation: interpolate(mask, size))
    stand_in = SimpleNamespace(functional=resize, InterpolationMode=SimpleNamespace(NEAREST="nearest"))
    for module in (transformer_cosmos, controlnet_cosmos):
        monkeypatch.setattr(module, "transforms", stand_in, raising=False)
    for family in (families.cosmos, families.cosmos_transfer):
        monkeypatch.setattr(family, "is_torchvision_available", lambda: True)


def tiny_cosmos(kind: str, **transformer: Any) -> Any:
    """Of a `kind` in `FRAMES`."""
    with torch.random.fork_rng():
        if kind == "predict-2.5":
            pipeline = cosmos2_5()
        else:
            pipeline = (cosmos1 if kind in ("text2world", "video2world") else cosmos2)(kind, **transformer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _made(
    pipeline: str,
    *,
    row: str,
    vae: tuple[str, dict[str, Any]],
    scheduler: Any,
    text_encoder: Any = None,
    language: Any = None,
    **transformer: Any,
) -> Any:
    model = row_of(row)
    made: Any = getattr(diffusers, pipeline)
    return made(
        tokenizer=language or tokenizer(),
        text_encoder=text_encoder or t5(),
        vae=build(*vae, seed=1),
        transformer=build(model.class_name, {**model.tiny, **transformer}),
        scheduler=scheduler,
        safety_checker=Trusting(),
    )
