"""Wan VACE in miniature: stock classes, every weight random."""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, WanVACEPipeline
from models import build
from tiny_pipelines import TRANSFORMER, VAE, text_encoder, tokenizer

FACTOR = 2
"""Pixels a side of a latent, without the patches that this pipeline does not know of."""
UNPATCHED = {**VAE, "patch_size": None, "in_channels": 3, "out_channels": 3, "scale_factor_spatial": FACTOR}


def vace() -> Any:
    """It makes 2k + 1 frames of sizes that 4 divides."""
    read = {**TRANSFORMER, "vace_layers": (0, 1), "vace_in_channels": 8 + FACTOR**2}
    made: Any = WanVACEPipeline(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=build("AutoencoderKLWan", UNPATCHED, seed=1),
        transformer=build("WanVACETransformer3DModel", read),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    made.set_progress_bar_config(disable=True)
    return made
