"""Encode training clips once: shards of normalised latents with their captions, used for many epochs.

A shard is a safetensors file: `latents`, `(N, 16, 9, 8, 8)` float16, and the captions in its metadata.
The transformer's training picks up shards that appear while it runs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors import safe_open
from safetensors.torch import save_file

from .budget import open_log, pick_device
from .clips import ClipDataset, loader, to_unit
from .settings import FRAMES, LATENT_CHANNELS, TRAIN_SEED, VAE
from .whole_clip import encode_moments

SHARD = 1024
OBJECTS = (1, 1, 2)
STATISTICS_CLIPS = 512


@torch.no_grad()
def finish_vae(checkpoint: Path, folder: Path, device: torch.device) -> AutoencoderKLWan:
    """The trained VAE as it will be shipped: rounded to float16, its config holding the measured latent statistics."""
    vae = AutoencoderKLWan(**VAE)
    vae.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    vae.half().float().to(device)
    clips = ClipDataset(seed=TRAIN_SEED, count=STATISTICS_CLIPS, num_objects=OBJECTS, num_frames=FRAMES)
    latents = torch.cat([encode(vae, to_unit(pixels)) for pixels, _ in loader(clips, 16)])
    per_channel = latents.transpose(0, 1).reshape(LATENT_CHANNELS, -1)
    vae.register_to_config(
        latents_mean=[round(value, 5) for value in per_channel.mean(1).tolist()],
        latents_std=[round(value, 5) for value in per_channel.std(1).tolist()],
    )
    vae.half().save_pretrained(folder)
    return vae.float()


def load_vae(folder: Path, device: torch.device) -> AutoencoderKLWan:
    return AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32).to(device).eval()


@torch.no_grad()
def encode(vae: AutoencoderKLWan, clips: torch.Tensor) -> torch.Tensor:
    """Clips `(B, 3, T, H, W)` in [-1, 1] to normalised latents `(B, 16, 1 + (T - 1) / 2, H / 8, W / 8)`, on the CPU.

    Latents are drawn from the posterior: a channel that the VAE does not use is then plain noise,
    instead of a faint signal blown up by its small deviation.
    """
    with torch.autocast(vae.device.type, torch.bfloat16):
        moments = encode_moments(vae, clips.to(vae.device)).float()
    latents = DiagonalGaussianDistribution(moments).sample().cpu()
    shape = (1, LATENT_CHANNELS, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).view(shape)
    normalized: torch.Tensor = (latents - mean) / torch.tensor(vae.config.latents_std).view(shape)
    return normalized


def write_shard(vae: AutoencoderKLWan, clips: ClipDataset, path: Path) -> None:
    latents, captions = [], []
    for pixels, texts in loader(clips, 16):
        latents.append(encode(vae, to_unit(pixels)).half())
        captions.extend(texts)
    partial = path.with_suffix(".partial")
    save_file({"latents": torch.cat(latents).contiguous()}, partial, metadata={"captions": json.dumps(captions)})
    partial.replace(path)


def read_shard(path: Path) -> tuple[torch.Tensor, list[str]]:
    with safe_open(path, framework="pt") as shard:
        return shard.get_tensor("latents"), json.loads(shard.metadata()["captions"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/foundation"))
    parser.add_argument("--shards", type=int, default=32, help=f"each of {SHARD} clips; existing ones are kept")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    log, device, folder = open_log(args.out / "latents.log"), pick_device(args.device), args.out / "vae"
    torch.manual_seed(TRAIN_SEED)
    vae = load_vae(folder, device) if folder.exists() else finish_vae(args.out / "vae.pt", folder, device)
    log.info("latents' deviation by channel: %s", vae.config.latents_std)
    (args.out / "latents").mkdir(exist_ok=True)
    for index in range(args.shards):
        path = args.out / "latents" / f"{index:03d}.safetensors"
        if not path.exists():
            first = index * SHARD
            clips = ClipDataset(seed=TRAIN_SEED, first=first, count=SHARD, num_objects=OBJECTS, num_frames=FRAMES)
            write_shard(vae, clips, path)
            log.info("%d clips encoded", first + SHARD)


if __name__ == "__main__":
    main()
