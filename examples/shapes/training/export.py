"""Put the trained parts together as a stock WanPipeline folder, float16, ready for `from_pretrained`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from diffusers.training_utils import EMAModel

from .latents import load_vae
from .model import Foundation
from .settings import FPS, FRAMES, HEIGHT, WIDTH
from .tokenizer import build_tokenizer

GENERATION_FILE = "generation.json"
"""Beside `model_index.json`: what to generate with unless the caller says otherwise."""


def build_pipeline(run: Path, *, shift: float) -> WanPipeline:
    """The pipeline of a run's folder, with the averaged weights."""
    tokenizer = build_tokenizer()
    model = Foundation(len(tokenizer))
    state = torch.load(run / "transformer.pt", weights_only=True, map_location="cpu")
    average = EMAModel(model.parameters())
    average.load_state_dict(state["ema"])
    average.copy_to(model.parameters())
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=model.text_encoder.eval(),
        vae=load_vae(run / "vae", torch.device("cpu")),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        transformer=model.transformer.eval(),
    )
    return pipeline.to(torch.float16)


def forget_paths(folder: Path) -> None:
    """Take out of the configs where on this machine the parts were loaded from."""
    for path in (folder / "model_index.json", *folder.glob("*/config.json")):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/foundation"))
    parser.add_argument("--out", type=Path, default=Path("runs/foundation/pipeline"))
    parser.add_argument("--shift", type=float, default=3.0, help="the scheduler's: more steps at high noise")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    args = parser.parse_args()
    build_pipeline(args.run, shift=args.shift).save_pretrained(args.out)
    forget_paths(args.out)
    generation = {
        "height": HEIGHT,
        "width": WIDTH,
        "num_frames": FRAMES,
        "fps": FPS,
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance,
    }
    (args.out / GENERATION_FILE).write_text(json.dumps(generation, indent=2) + "\n")
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
