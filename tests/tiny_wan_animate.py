"""Wan 2.2 Animate in miniature: stock classes, every weight random; and what its pipeline is called with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from architectures import row_of
from diffusers import UniPCMultistepScheduler, WanAnimatePipeline
from models import build, noisy
from PIL import Image
from tiny_from_images import CLIP
from tiny_pipelines import VAE, text_encoder, tokenizer
from transformers import CLIPImageProcessor, CLIPVisionModel

SIZE: dict[str, int] = {"num_frames": 5, "height": 32, "width": 48}
FACE = 16
"""Pixels a side."""
LOUD = 5
"""Times the noise in other parameters: its layers divide theirs by their width, and nothing of a face would be left."""
UNPATCHED = {
    **VAE,
    # The pipeline's masks count four frames to a latent, whatever the VAE says.
    "dim_mult": [1, 2, 2],
    "temperal_downsample": [True, True],
    "patch_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 4,
}


def wan_animate(**config: Any) -> Any:
    """It makes 4k + 1 frames of sizes that 16 divides."""
    row = row_of("wan-animate")
    with torch.random.fork_rng():
        pipeline: Any = WanAnimatePipeline(
            tokenizer=tokenizer(),
            text_encoder=text_encoder(),
            vae=build("AutoencoderKLWan", UNPATCHED, seed=1),
            scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
            image_processor=CLIPImageProcessor(),
            image_encoder=noisy(CLIPVisionModel(CLIP), 3),
            transformer=build(row.class_name, {**row.tiny, "num_layers": 2, **config}),
        )
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        for parameter in pipeline.transformer.motion_encoder.parameters():
            parameter.mul_(LOUD)
    return pipeline


def frames_of(seed: int, *, side: int | None = None, num_frames: int = SIZE["num_frames"]) -> np.ndarray:
    """(T, H, W, 3), nothing but noise; square with `side`."""
    sides = (SIZE["height"], SIZE["width"]) if side is None else (side, side)
    return np.random.default_rng(seed).integers(256, size=(num_frames, *sides, 3), dtype=np.uint8)


def pixels_of(frames: np.ndarray) -> torch.Tensor:
    """(1, 3, T, H, W) in [-1, 1]."""
    return torch.tensor(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1


def pictures_of(frames: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in frames]
