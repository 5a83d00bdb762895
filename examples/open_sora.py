"""Open-Sora 1.2 in plain diffusers: text to video, from a picture, and clips longer than one.

    python examples/open_sora.py ./open-sora-1.2 "a black swan on a lake" --resolution 240p --frames 4s -o swan.mp4
    python examples/open_sora.py ./open-sora-1.2 "waves roll in" --image cliff.png --loop 3 -o waves.mp4

The folder is put together once, of the pieces that the authors published (T5 alone has 19 GB; `from_published` takes
other folders and Hub ids for each piece):

    python examples/open_sora.py hpcai-tech/OpenSora-STDiT-v3 --assemble ./open-sora-1.2

It grows as any other: grow expand ./open-sora-1.2 --mode insert -o ./open-sora-2b
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import export_to_gif, export_to_video
from PIL import Image

from modelgrow.pipelines import OpenSoraPipeline


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a pipeline; with --assemble, folder or Hub id of a STDiT")
    parser.add_argument("prompt", nargs="?", default="")
    parser.add_argument("--assemble", type=Path, metavar="DIR", help="write a pipeline of published pieces, and stop")
    parser.add_argument("--vae", help="with --assemble: another VAE")
    parser.add_argument("--text-encoder", default="DeepFloyd/t5-v1_1-xxl", help="with --assemble: another T5")
    parser.add_argument("--image", type=Path, help="picture to begin with")
    parser.add_argument("--resolution", default="240p", help="144p to 1080p")
    parser.add_argument("--aspect-ratio", default="9:16", help="height to width: this is landscape")
    parser.add_argument("--frames", default="2s", help="a number, or 2s, 4s, 8s, 16s")
    parser.add_argument("--loop", type=int, default=1, help="clips to join, each going on where the last one ended")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=7.0)
    parser.add_argument("--motion", type=float, help="motion score, such as 4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", "-o", type=Path, default=Path("clip.gif"), help=".gif or .mp4")
    args = parser.parse_args(words)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    if args.assemble:
        pieces = {"vae": args.vae, "text_encoder": args.text_encoder}
        OpenSoraPipeline.from_published(args.model, dtype=dtype, **pieces).save_pretrained(args.assemble)
        return

    pipeline = DiffusionPipeline.from_pretrained(args.model, dtype=dtype).to(device)
    pipeline.vae.enable_slicing()
    pipeline.vae.enable_tiling()  # for 720p
    clip = pipeline(
        args.prompt,
        image=Image.open(args.image).convert("RGB") if args.image else None,
        resolution=args.resolution,
        aspect_ratio=args.aspect_ratio,
        num_frames=args.frames,
        loop=args.loop,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance,
        motion_score=args.motion,
        generator=torch.Generator("cpu").manual_seed(args.seed),
        output_type="pil",
    ).frames[0]
    write = export_to_gif if args.output.suffix == ".gif" else export_to_video
    write(clip, str(args.output), fps=24)


if __name__ == "__main__":
    main()
