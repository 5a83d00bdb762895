"""What a denoising step of ExVideo's UNet and a decoding of SVD's take at true size, counted on tensors without bytes.

python benchmarks/clip_memory.py        the table of docs/generate.md, on any machine
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder
from rich.console import Console
from rich.table import Table

from modelgrow.pipelines import ExVideoUNetSpatioTemporalConditionModel
from modelgrow.pipelines.activations import activation_bytes
from modelgrow.pipelines.one_clip import as_it_runs, one_clip_at_a_time

CLIPS = ((64, 512), (128, 512), (128, 1024))
"""Frames and side in pixels; the last is the second stage's."""
SCALE, DECODED = 8, 4
DTYPE = torch.float16
SVD_VAE = {"block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4}


def step_bytes(unet: Any, frames: int, side: int) -> int:
    """Of both clips that guidance makes, or of one, if the UNet takes them one after the other."""
    sample = torch.empty(2, frames, 8, side // SCALE, side // SCALE, dtype=DTYPE)
    given = {
        "timestep": torch.ones(()),
        "encoder_hidden_states": torch.empty(2, 1, 1024, dtype=DTYPE),
        "added_time_ids": torch.empty(2, 3, dtype=DTYPE),
    }
    return activation_bytes(unet, *as_it_runs(unet, (sample,), given))


def decode_bytes(vae: Any, side: int) -> int:
    latents = torch.empty(DECODED, 4, side // SCALE, side // SCALE, dtype=DTYPE)
    return activation_bytes(
        vae.decoder, (latents,), {"image_only_indicator": torch.zeros(1, DECODED), "num_frames": DECODED}
    )


def main() -> None:
    with torch.device("meta"):
        plain, saving = (ExVideoUNetSpatioTemporalConditionModel(sample_size=64).to(DTYPE) for _ in range(2))
        vae: Any = AutoencoderKLTemporalDecoder(**SVD_VAE, latent_channels=4, layers_per_block=2).to(DTYPE)
    saving.enable_forward_chunking(chunk_size=1, dim=0)
    one_clip_at_a_time(saving)
    table = Table("clip", "activations", "with --low-memory")
    for frames, side in CLIPS:
        found = (f"{step_bytes(unet, frames, side) / 1e9:.1f} GB" for unet in (plain, saving))
        table.add_row(f"{frames} frames, {side}x{side}", *found)
    console = Console()
    console.print(table)
    weights = sum(parameter.nbytes for parameter in plain.parameters())
    largest = max(sum(p.nbytes for p in leaf.parameters(recurse=False)) for leaf in plain.modules())
    console.print(f"weights {weights / 1e9:.1f} GB, the largest layer twice {2 * largest / 1e9:.1f} GB")
    for side in (512, 1024):
        console.print(f"decoding {DECODED} frames of {side}x{side}: {decode_bytes(vae, side) / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
