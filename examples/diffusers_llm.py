"""A model with a slot for a language model, in plain diffusers.

    grow attach-llm ./Wan2.1-T2V-1.3B-Diffusers --llm Qwen/Qwen3-0.6B -o ./wan-slot
    grow train ./wan-slot --data ./clips -o ./run
    python examples/diffusers_llm.py ./run/model "a crimson disc drifts west" -o clip.gif

One import of ours, and then diffusers as always: the language model reads every prompt, with no argument for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import export_to_gif

import modelgrow.pipelines  # noqa: F401  diffusers finds the grown classes through it


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of a pipeline with a slot")
    parser.add_argument("prompt")
    parser.add_argument("--negative-prompt", help="read by both encoders too")
    parser.add_argument("--frames", type=int, help="default: the pipeline's own, as of the next four")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", "-o", type=Path, default=Path("clip.gif"))
    args = parser.parse_args(words)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    pipeline = DiffusionPipeline.from_pretrained(args.model, dtype=dtype).to(device)
    pipeline.llm_offload = "cpu"  # it has read before the first step, and leaves its memory to the transformer

    # Reading once and keeping what was read: with these the language model need not be there at all.
    states = pipeline.encode_llm(args.prompt)
    states.save(args.output.with_suffix(".safetensors"))

    options = {
        "num_frames": args.frames,
        "height": args.height,
        "width": args.width,
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance,
    }
    clip = pipeline(
        prompt=args.prompt,
        negative_prompt=args.negative_prompt,
        llm_states=states,  # leave it out, and the prompt is read anew: the clip is the same
        **{name: value for name, value in options.items() if value is not None},
        generator=torch.Generator("cpu").manual_seed(args.seed),
        output_type="pil",
    ).frames[0]
    export_to_gif(clip, str(args.output))


if __name__ == "__main__":
    main()
