"""Train the foundation's transformer and text encoder: rectified flow on cached latents and short captions.

A noisy sample is `(1 - s) x + s e` with `s` in [0, 1], the timestep is `1000 s` and the target `e - x`:
what FlowMatchEulerDiscreteScheduler integrates. One caption in eight is left out, for guidance.

Every other batch holds only the beginnings of clips, three times as many of them: the VAE is causal, so
these are the latents of shorter clips, and at the same price they show more shapes with their names.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from modelgrow.train.objectives import rectified_flow

from .budget import Budget, learning_rate, open_log, pick_device, save_checkpoint, set_learning_rate
from .clips import ClipDataset, loader, to_unit
from .conditioning import embed, pad_bias, random_lengths, tokenize, use_counted_pads
from .latents import OBJECTS, encode, load_vae
from .model import Foundation, make_optimizers
from .settings import FRAMES, TRAIN_SEED, VALIDATION_SEED
from .store import LatentStore, vary_captions
from .tokenizer import build_tokenizer

SIGMA_MEAN, SIGMA_SPREAD = 0.6, 1.1
"""Of the normal distribution whose sigmoid is the noise level: colour, shape and way are decided at high noise."""
EMA_DECAY = 0.998
SHORT_LATENTS, SHORT_BATCHES = 3, 3
"""Frames of latents in a short clip; how many times as many of them a batch holds."""


class Trainer:
    """Models, optimizers and random state of one run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = pick_device(args.device)
        torch.manual_seed(TRAIN_SEED)
        self.tokenizer = build_tokenizer()
        self.model = Foundation(len(self.tokenizer)).to(self.device)
        self.pads = use_counted_pads(self.model.transformer)
        self.optimizers = make_optimizers(self.model)
        self.peaks = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self.ema = EMAModel(self.model.parameters(), decay=EMA_DECAY, use_ema_warmup=True, foreach=True)
        self.ema.to(self.device)
        self.generator = torch.Generator().manual_seed(TRAIN_SEED)
        self.budget = Budget(minutes=args.minutes, steps=args.steps)
        self.compiled = torch.compile(self.model.transformer, dynamic=False) if args.compile else self.model.transformer

    def loss(
        self,
        transformer: Callable[..., Any],
        latents: torch.Tensor,
        captions: list[str],
        sigmas: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Mean squared error of the predicted flow. `latents`: `(B, 16, T, h, w)`; `sigmas`: `(B,)`."""
        ids, mask = tokenize(self.tokenizer, captions)
        self.pads.bias = pad_bias(mask, random_lengths(len(latents), generator)).to(self.device)
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        latents, sigmas = latents.to(self.device), sigmas.to(self.device)
        prediction = transformer(
            hidden_states=rectified_flow.noisy_sample(latents, noise, sigmas),
            timestep=rectified_flow.timesteps(sigmas),
            encoder_hidden_states=embed(self.model.text_encoder, ids.to(self.device), mask.to(self.device)),
            return_dict=False,
        )[0]
        error: torch.Tensor = prediction - rectified_flow.target(latents, noise)
        return error.square().mean()

    def step(self, store: LatentStore) -> float:
        short = self.budget.step % 2 == 1
        latents, captions = store.sample(self.args.batch_size * (SHORT_BATCHES if short else 1), self.generator)
        latents = latents[:, :, :SHORT_LATENTS].contiguous() if short else latents
        sigmas = rectified_flow.sample_sigmas(len(latents), mean=SIGMA_MEAN, std=SIGMA_SPREAD, generator=self.generator)
        captions = vary_captions(captions, self.generator)
        loss = self.loss(self.compiled, latents, captions, sigmas, self.generator)
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            set_learning_rate(optimizer, learning_rate(peak, self.budget.progress()))
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.step(self.model.parameters())
        self.budget.step += 1
        return loss.item()

    @torch.no_grad()
    def validate(self, latents: torch.Tensor, captions: list[str]) -> float:
        """The loss of the averaged weights on held-out clips, always with the same noise."""
        self.ema.store(self.model.parameters())
        self.ema.copy_to(self.model.parameters())
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        sigmas = torch.linspace(0.05, 0.98, len(latents))
        value = self.loss(self.model.transformer, latents, captions, sigmas, generator).item()
        self.ema.restore(self.model.parameters())
        return value

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            **self.budget.state(),
        }
        save_checkpoint(path, state)

    def start(self, path: Path) -> None:
        """Begin anew from the averaged weights of an earlier run."""
        self.ema.load_state_dict(torch.load(path, weights_only=True)["ema"])
        self.ema.copy_to(self.model.parameters())
        self.ema.optimization_step = 0

    def resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.budget.step, self.budget.used_seconds = int(state["step"]), float(state["used_seconds"])


@torch.no_grad()
def held_out(args: argparse.Namespace, count: int = 128) -> tuple[torch.Tensor, list[str]]:
    """Latents and captions of clips from the validation series."""
    torch.manual_seed(VALIDATION_SEED)
    vae = load_vae(args.out / "vae", pick_device(args.device))
    clips = ClipDataset(seed=VALIDATION_SEED, count=count, num_objects=OBJECTS, num_frames=FRAMES)
    batches = [(encode(vae, to_unit(pixels)), texts) for pixels, texts in loader(clips, 16)]
    return torch.cat([latents for latents, _ in batches]), [text for _, texts in batches for text in texts]


def train(args: argparse.Namespace) -> None:
    log = open_log(args.out / "transformer.log")
    validation = held_out(args)
    store = LatentStore(args.out / "latents")
    trainer = Trainer(args)
    checkpoint = args.out / "transformer.pt"
    if args.resume and checkpoint.exists():
        trainer.resume(checkpoint)
    elif args.start:
        trainer.start(args.start)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in trainer.model.named_children()}
    log.info("parameters %s on %s, %d shards", parts, trainer.device, len(store.seen))
    running, budget = 0.0, trainer.budget
    while budget.progress() < 1:
        running += trainer.step(store)
        if budget.step % 100 == 0:
            log.info(
                "step %d %4.1f%% %.0f s loss %.4f",
                budget.step,
                100 * budget.progress(),
                budget.elapsed(),
                running / 100,
            )
            running = 0.0
        if budget.step % 500 == 0:
            store.refresh()
            log.info("step %d validation %.4f, %d shards", budget.step, trainer.validate(*validation), len(store.seen))
            trainer.save(checkpoint)
    trainer.save(checkpoint)
    log.info(
        "done: validation %.4f after %d steps, %.0f s", trainer.validate(*validation), budget.step, budget.elapsed()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/foundation"))
    parser.add_argument("--start", type=Path, help="a checkpoint to begin from, with a new budget")
    parser.add_argument("--minutes", type=float, help="wall time to train (default: 60 unless --steps is given)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="torch.compile the transformer")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    args = parser.parse_args()
    if args.minutes is None and args.steps is None:
        args.minutes = 60.0
    train(args)


if __name__ == "__main__":
    main()
