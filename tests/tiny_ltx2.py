"""LTX-2's pipeline in miniature, sound and all. Its VAE makes one latent of 4 x 4 pixels, and of 2 frames."""

from __future__ import annotations

from typing import Any

import torch
from architectures import row_of
from diffusers import FlowMatchEulerDiscreteScheduler, LTX2Pipeline
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from models import build, noisy
from tiny_pipelines import tokenizer
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

VAE: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": (8, 8),
    "down_block_types": ("LTX2VideoDownBlock3D",) * 2,
    "layers_per_block": (1, 1, 1),
    "spatio_temporal_scaling": (True, True),
    "downsample_type": ("spatial", "spatiotemporal"),
    "decoder_block_out_channels": (8, 8),
    "decoder_layers_per_block": (1, 1, 1),
    "decoder_spatio_temporal_scaling": (True, True),
    "decoder_inject_noise": (False, False, False),
    "upsample_type": ("spatiotemporal", "spatial"),
    "upsample_residual": (True, True),
    "upsample_factor": (1, 1),
    "patch_size": 1,
    "spatial_compression_ratio": 4,
    "temporal_compression_ratio": 2,
}
AUDIO_VAE: dict[str, Any] = {"base_channels": 6, "ch_mult": (1, 2, 4), "num_res_blocks": 1, "latent_channels": 2}
MEL_BINS = 12
TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 2048,
}
VISION: dict[str, Any] = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
OPTIONS: dict[str, Any] = {
    "num_frames": 9,
    "height": 32,
    "width": 64,
    "guidance_scale": 1.0,
    "audio_guidance_scale": 1.0,
    "stg_scale": 0.0,
    "audio_stg_scale": 0.0,
    "modality_scale": 3.0,
}
"""Two calls of the model in each step: video and sound together, and each by itself."""


def ltx2(row: str = "ltx2") -> Any:
    architecture = row_of(row)
    config = {**architecture.tiny, "caption_channels": TEXT["hidden_size"]}
    transformer = build(architecture.class_name, config)
    apart = not transformer.config.use_prompt_embeddings  # LTX-2.3: the connectors project to each stream's width
    widths = (32, 16) if apart else (16, 16)
    connectors = LTX2TextConnectors(
        caption_channels=TEXT["hidden_size"],
        text_proj_in_factor=TEXT["num_hidden_layers"] + 1,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=widths[0] // 2,
        video_connector_num_layers=1,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=widths[1] // 2,
        audio_connector_num_layers=1,
        per_modality_projections=apart,
        video_hidden_dim=widths[0],
        audio_hidden_dim=widths[1],
    )
    return LTX2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, shift_terminal=0.1
        ),
        vae=_measured(build("AutoencoderKLLTX2Video", VAE, seed=1)),
        audio_vae=_measured(build("AutoencoderKLLTX2Audio", {**AUDIO_VAE, "mel_bins": MEL_BINS}, seed=1)),
        text_encoder=noisy(_gemma(), 2),
        tokenizer=tokenizer(),
        connectors=noisy(connectors, 3),
        transformer=transformer,
        vocoder=noisy(_vocoder(), 4),
    )


def isolated(
    pipeline: Any, calls: list[tuple[Any, dict[str, Any], Any]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, timesteps and the video's answer of the first call that keeps video and sound apart."""
    _, asked, answer = next(call for call in calls if call[1]["isolate_modalities"])
    size = asked["num_frames"], asked["height"], asked["width"]
    noisy, video = (pipeline._unpack_latents(tokens, *size) for tokens in (asked["hidden_states"], answer[0]))
    return noisy, asked["timestep"], video


def _measured(vae: Any) -> Any:
    """With means and deviations that could be measured."""
    with torch.no_grad():
        vae.latents_mean.copy_(torch.linspace(-0.2, 0.2, len(vae.latents_mean)))
        vae.latents_std.copy_(torch.linspace(0.8, 1.2, len(vae.latents_std)))
    return vae


def _gemma() -> Any:
    tokens = {"boi_token_index": 61, "eoi_token_index": 62, "image_token_index": 63}
    config = Gemma3Config(text_config=TEXT, vision_config=VISION, mm_tokens_per_image=4, **tokens)
    return Gemma3ForConditionalGeneration(config)


def _vocoder() -> Any:
    return LTX2Vocoder(
        in_channels=2 * MEL_BINS,
        hidden_channels=8,
        upsample_kernel_sizes=[4],
        upsample_factors=[2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1]],
    )
