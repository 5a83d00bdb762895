"""Allegro's pipeline in miniature. Its VAE has tiles of 24 frames of 128 x 128, 16 frames, 8 rows, 48 columns apart."""

from __future__ import annotations

from typing import Any

from architectures import row_of
from diffusers import AllegroPipeline, DDIMScheduler
from models import build
from tiny_pipelines import t5, tokenizer

VAE: dict[str, Any] = {
    "block_out_channels": (4, 4, 4, 4),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": 4,
    "sample_size": 128,
    "scaling_factor": 0.3,
}
OPTIONS: dict[str, Any] = {"num_frames": 24, "height": 128, "width": 128, "guidance_scale": 1.0}


def allegro() -> Any:
    row = row_of("allegro")
    pipeline = AllegroPipeline(
        tokenizer=tokenizer(),
        text_encoder=t5(),
        vae=build("AutoencoderKLAllegro", VAE, seed=1),
        transformer=build(row.class_name, row.tiny),
        scheduler=DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )
    pipeline.vae.enable_tiling()  # without, it decodes nothing; without the next, one clip at a time
    pipeline.vae.enable_slicing()
    return pipeline
