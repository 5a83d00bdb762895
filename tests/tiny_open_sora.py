"""Open-Sora pipelines in miniature, of both versions: every weight random, a few hundred kilobytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler
from models import build, noisy
from tiny_pipelines import tokenizer
from transformers import T5Config, T5EncoderModel

from modelgrow.pipelines import OpenSoraPipeline
from modelgrow.pipelines.open_sora.assemble import diffusion_scheduler

SPATIAL = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [4, 4, 8, 8],
    "layers_per_block": 1,
    "sample_size": 256,
    "norm_num_groups": 2,
}
TEMPORAL = {"filters": 4, "num_res_blocks": 1, "num_groups": 2}
VAE_1_2 = {"spatial": SPATIAL, "temporal": TEMPORAL}
VAE_1_0 = {"spatial": SPATIAL, "temporal": None, "shift": [0.0] * 4, "scale": [1.0] * 4}
STDIT3 = {"hidden_size": 24, "depth": 2, "num_heads": 2, "caption_channels": 16, "model_max_length": 12}
STDIT = {**STDIT3, "input_size": [4, 4, 4]}
TEXT = T5Config(
    vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, is_encoder_decoder=False, use_cache=False
)


def text_encoder() -> Any:
    return noisy(T5EncoderModel(TEXT), 2, scale=0.5)


def open_sora(*, version: str = "1.2", depth: int = 2) -> Any:
    """A pipeline. Version 1.0 makes clips of 4 frames, 32 x 32."""
    flow = version == "1.2"
    name, config = ("STDiT3Transformer3DModel", STDIT3) if flow else ("STDiTTransformer3DModel", STDIT)
    pipeline: Any = OpenSoraPipeline(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=build("AutoencoderKLOpenSora", VAE_1_2 if flow else VAE_1_0, seed=1),
        transformer=build(name, {**config, "depth": depth}),
        scheduler=FlowMatchEulerDiscreteScheduler() if flow else diffusion_scheduler(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_open_sora(folder: Path, *, version: str = "1.2") -> Path:
    """Write one."""
    open_sora(version=version).save_pretrained(folder)
    return folder
