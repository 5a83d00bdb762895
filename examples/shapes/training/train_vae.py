"""Train the foundation's VAE: clips of one to three objects in, the same clips out.

Small batches: the number of steps is what counts. Most of them compute in bfloat16; the last quarter is
in float32 and has longer clips too, so that the zeros before the first frame leave no trace in later ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn

from .budget import Budget, learning_rate, open_log, pick_device, save_checkpoint, set_learning_rate
from .clips import ClipDataset, loader, to_unit
from .flat_muon import FlatMuon
from .settings import FRAMES, LATENT_CHANNELS, TRAIN_SEED, VAE, VALIDATION_SEED
from .whole_clip import decode_unclamped, encode_moments

PHASES = ((0.6, 9, 4, True), (0.9, FRAMES, 3, True), (0.95, 2 * FRAMES - 1, 2, False), (1.0, FRAMES, 3, False))
"""Until which share of the budget, frames of a clip, clips of a batch, whether in bfloat16."""
FOREGROUND_WEIGHT = 15.0
KL_WEIGHT = 1e-4
MATRIX_RATE, OTHER_RATE = 0.01, 2e-3
"""Peak learning rates of Muon, for the kernels, and of AdamW, for everything else."""
FIRST_LOG_VARIANCE = -5.0
"""Where the posterior starts: at 0 the decoder would see little but noise for hundreds of steps."""
OBJECTS = (2, 3)


def pixel_weights(clips: torch.Tensor) -> torch.Tensor:
    """1 on the background and `1 + FOREGROUND_WEIGHT` on objects and their rims: `(B, 1, T, H, W)`, mean 1.

    A small object is 2 % of the picture; without a weight its colour hardly counts.
    """
    background = clips.flatten(2).median(dim=2).values[:, :, None, None, None]
    mask = ((clips - background).abs().amax(dim=1, keepdim=True) > 0.05).float()
    mask = torch.nn.functional.max_pool3d(mask, (1, 3, 3), stride=1, padding=(0, 1, 1))
    weights = 1.0 + FOREGROUND_WEIGHT * mask
    return weights / weights.mean()


def reconstruction_loss(decoded: torch.Tensor, clips: torch.Tensor) -> torch.Tensor:
    """Weighted absolute plus squared error."""
    error = decoded - clips
    return (pixel_weights(clips) * (error.abs() + error.square())).mean()


def batches(*, first: int, num_frames: int, batch_size: int) -> Iterator[torch.Tensor]:
    dataset = ClipDataset(seed=TRAIN_SEED, first=first, count=10**9, num_objects=OBJECTS, num_frames=num_frames)
    for pixels, _ in loader(dataset, batch_size):
        yield to_unit(pixels)


def validation_clips(count: int = 16) -> torch.Tensor:
    dataset = ClipDataset(seed=VALIDATION_SEED, count=count, num_objects=OBJECTS, num_frames=FRAMES)
    return to_unit(torch.stack([dataset[index][0] for index in range(count)]))


def new_vae() -> AutoencoderKLWan:
    vae = AutoencoderKLWan(**VAE)
    with torch.no_grad():
        vae.quant_conv.weight[LATENT_CHANNELS:] *= 0.1
        vae.quant_conv.bias[LATENT_CHANNELS:] += FIRST_LOG_VARIANCE
    return vae


def make_optimizers(vae: AutoencoderKLWan) -> list[torch.optim.Optimizer]:
    """Muon for the kernels between the first and the last layers, AdamW for the rest."""
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in vae.named_parameters():
        inside = not any(end in name for end in ("conv_in", "conv_out", "quant_conv"))
        (kernels if inside and name.endswith("weight") and parameter.ndim >= 4 else others).append(parameter)
    return [
        FlatMuon(kernels, lr=MATRIX_RATE),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.99), weight_decay=1e-4),
    ]


@torch.no_grad()
def validate(vae: AutoencoderKLWan, clips: torch.Tensor) -> tuple[float, float]:
    """Mean absolute error over whole clips, and over the objects alone, both in grey levels of 255."""
    posterior = vae.encode(clips).latent_dist
    error = (vae.decode(posterior.mode()).sample - clips).abs() * 127.5
    objects = pixel_weights(clips)
    objects = (objects > objects.amin(dim=(1, 2, 3, 4), keepdim=True) * 1.5).expand_as(error)
    return error.mean().item(), error[objects].mean().item()


def train(args: argparse.Namespace) -> None:
    log = open_log(args.out / "vae.log")
    device = pick_device(args.device)
    checkpoint = args.out / "vae.pt"
    torch.manual_seed(TRAIN_SEED)
    vae = new_vae().to(device)
    optimizers = make_optimizers(vae)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    budget = Budget(minutes=args.minutes, steps=args.steps)
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        vae.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        budget.step, budget.used_seconds = int(state["step"]), float(state["used_seconds"])
    elif args.start:
        vae.load_state_dict(torch.load(args.start, weights_only=True)["model"])
    log.info("%.2f M parameters on %s", sum(p.numel() for p in vae.parameters()) / 1e6, device)
    held_out = validation_clips().to(device)
    for until, frames, size, half in PHASES:
        if budget.progress() >= until:
            continue
        for clips in batches(first=budget.step * 4, num_frames=frames, batch_size=size):
            for optimizer, peak in zip(optimizers, peaks, strict=True):
                set_learning_rate(optimizer, learning_rate(peak, budget.progress()))
            loss, kl = train_step(vae, optimizers, clips.to(device), half=half)
            budget.step += 1
            if budget.step % 50 == 0:
                log.info("step %d %4.1f%% loss %.4f kl %.3f", budget.step, 100 * budget.progress(), loss, kl)
            if budget.step % 500 == 0:
                log.info(
                    "step %d validation: error %.2f, on objects %.2f of 255", budget.step, *validate(vae, held_out)
                )
                save(checkpoint, vae, optimizers, budget)
            if budget.progress() >= until:
                break
    save(checkpoint, vae, optimizers, budget)
    log.info("done: error %.2f, on objects %.2f of 255 after %.0f s", *validate(vae, held_out), budget.elapsed())


def train_step(
    vae: AutoencoderKLWan, optimizers: list[torch.optim.Optimizer], clips: torch.Tensor, *, half: bool
) -> tuple[float, float]:
    with torch.autocast(clips.device.type, torch.bfloat16, enabled=half):
        posterior = DiagonalGaussianDistribution(encode_moments(vae, clips).float())
        decoded = decode_unclamped(vae, posterior.sample()).float()
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    loss = reconstruction_loss(decoded, clips)
    vae.zero_grad()
    (loss + KL_WEIGHT * kl).backward()
    torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item(), kl.item()


def save(path: Path, vae: AutoencoderKLWan, optimizers: list[torch.optim.Optimizer], budget: Budget) -> None:
    states = [optimizer.state_dict() for optimizer in optimizers]
    save_checkpoint(path, {"model": vae.state_dict(), "optimizers": states, **budget.state()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/foundation"))
    parser.add_argument("--minutes", type=float, help="wall time to train (default: 24 unless --steps is given)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--start", type=Path, help="weights to begin from instead of random ones")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    args = parser.parse_args()
    if args.minutes is None and args.steps is None:
        args.minutes = 24.0
    train(args)


if __name__ == "__main__":
    main()
