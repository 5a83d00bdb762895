"""Less memory for more time: layers in pieces, clips one by one, the VAE in tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import UNetSpatioTemporalConditionModel

from .memory import DENOISERS
from .one_clip import one_clip_at_a_time
from .parameters import parameters_of

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

DECODE_CHUNK = 4
"""Frames decoded at a time."""


def offload_for(device: torch.device) -> str | None:
    """Which of `load_pipeline`'s offloads saves most; on a CPU the weights are where they compute already."""
    return None if device.type == "cpu" else "group"


def save_memory(pipeline: DiffusionPipeline) -> dict[str, int]:
    """Switch on what diffusers' components have for it.

    Feed-forward layers of UNets run frame by frame (SVD's are four times as wide as their input), and SVD's UNet takes
    the two clips of guidance one after the other; the VAE decodes clips one by one and large frames in tiles, where it
    can do that.

    Returns:
        What to call the pipeline with besides.
    """
    for name in DENOISERS:
        denoiser: Any = getattr(pipeline, name, None)
        if hasattr(denoiser, "enable_forward_chunking"):
            denoiser.enable_forward_chunking(chunk_size=1, dim=0)
        if isinstance(denoiser, UNetSpatioTemporalConditionModel):
            one_clip_at_a_time(denoiser)
    vae = getattr(pipeline, "vae", None)
    for way in ("slicing", "tiling"):
        if hasattr(vae, f"use_{way}"):  # every VAE has the switch; for want of this it raises
            getattr(vae, f"enable_{way}")()
    return {"decode_chunk_size": DECODE_CHUNK} if "decode_chunk_size" in parameters_of(pipeline) else {}
