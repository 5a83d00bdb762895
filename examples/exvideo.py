"""A long clip from a picture with ExVideo, in plain diffusers; with --second-stage the same clip at twice the size.

    grow extend-frames ./stable-video-diffusion-img2vid-xt --to 128 -o ./svd-128f
    grow train ./svd-128f --data ./clips -o ./run
    python examples/exvideo.py ./run/model cat.png -o cat.gif

One import of ours, and then diffusers as always. A folder with ExVideo's released weights works as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import export_to_gif, load_image

import modelgrow.pipelines  # noqa: F401  diffusers finds ExVideo's classes through it


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of an extended Stable Video Diffusion")
    parser.add_argument("image", help="the first frame")
    parser.add_argument("--frames", type=int, help="default: as many as the model holds")
    parser.add_argument("--size", type=int, default=512, help="pixels of each side, a multiple of 64")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--second-stage", action="store_true", help="and twice the size, in four times the memory")
    parser.add_argument("--output", "-o", type=Path, default=Path("clip.gif"))
    args = parser.parse_args(words)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    pipeline = DiffusionPipeline.from_pretrained(args.model, dtype=dtype)
    pipeline.unet.enable_forward_chunking()  # 128 frames at once: wide layers run frame by frame
    if device == "cuda":
        pipeline.enable_model_cpu_offload()

    image = load_image(args.image)
    clip = pipeline(
        image,
        height=args.size,
        width=args.size,
        num_frames=args.frames,
        num_inference_steps=args.steps,
        generator=torch.Generator("cpu").manual_seed(args.seed),
        output_type="pil",
    ).frames[0]
    export_to_gif(clip, str(args.output), fps=30)
    if not args.second_stage:
        return

    larger = pipeline(
        image,
        video=clip,
        strength=0.5,  # half of the way back to noise
        height=2 * args.size,
        width=2 * args.size,
        num_inference_steps=max(1, args.steps // 2),
        decode_chunk_size=4,
        generator=torch.Generator("cpu").manual_seed(args.seed),
        output_type="pil",
    ).frames[0]
    export_to_gif(larger, str(args.output.with_stem(f"{args.output.stem}-2x")), fps=30)


if __name__ == "__main__":
    main()
