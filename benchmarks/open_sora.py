"""What a denoising step of Open-Sora 1.2 costs here and in the reference's eager form, in one go, as ratios.

    python benchmarks/open_sora.py                          tiny, on a CPU
    python benchmarks/open_sora.py --size 240p-51           STDiT3-XL/2 with random weights, on a GPU
    python benchmarks/open_sora.py --size 720p-102 --json costs.json

The reference is written again in plain torch (tests/plain_stdit3.py, which tests hold against its numbers): its softmax
by hand is 1.00; with PyTorch's kernels in place of the flash-attention it can be built with is the next row. A step is
both halves of guidance, a prompt of 120 tokens and 300 places for it. Rounds are interleaved; times are medians.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from modelgrow.pipelines.models import model_class

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from plain_stdit3 import PlainSTDiT3, softmax_attention


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model's config, and the clips: latents (C, F, h, w) and their pixels."""

    config: dict[str, Any]
    latents: tuple[int, int, int, int]
    pixels: tuple[int, int]


_XL: dict[str, Any] = {}
SIZES = {
    "tiny": Size(
        config={"hidden_size": 144, "num_heads": 2, "depth": 4, "caption_channels": 64},
        latents=(4, 5, 16, 16),
        pixels=(128, 128),
    ),
    "240p-51": Size(config=_XL, latents=(4, 15, 30, 53), pixels=(240, 426)),
    "480p-51": Size(config=_XL, latents=(4, 15, 60, 106), pixels=(480, 854)),
    "720p-102": Size(config=_XL, latents=(4, 30, 90, 160), pixels=(720, 1280)),
}
PROMPT = 120


@dataclass(kw_only=True)
class Case:
    """One way to take the step. `difference`: the largest from the first one's output, over its standard deviation."""

    name: str
    difference: float = 0.0
    peak_bytes: int | None = None
    seconds: list[float] = field(default_factory=list)


def make_inputs(size: Size, model: Any, device: str) -> dict[str, torch.Tensor]:
    """By the reference's names."""
    generator = torch.Generator().manual_seed(0)
    length, width = model.config.model_max_length, model.config.caption_channels
    clip = torch.randn(1, *size.latents, generator=generator)
    mask = (torch.arange(length)[None] < min(PROMPT, length)).long()
    inputs = {
        "x": clip.repeat(2, 1, 1, 1, 1),
        "timestep": torch.full((2,), 500.0),
        "y": torch.randn(2, length, width, generator=generator),
        "mask": mask,
        "fps": torch.full((2,), 24.0),
        "height": torch.full((2,), float(size.pixels[0])),
        "width": torch.full((2,), float(size.pixels[1])),
    }
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def make_steps(size: Size, device: str, dtype: torch.dtype) -> dict[str, Callable[[], torch.Tensor]]:
    """What is timed, by name; all of the same weights."""
    torch.manual_seed(0)
    with torch.device(device):
        model = model_class("STDiT3Transformer3DModel")(**size.config).to(dtype).eval()
    inputs = make_inputs(size, model, device)
    names = {"x": "hidden_states", "y": "encoder_hidden_states", "mask": "encoder_attention_mask"}
    ours = {names.get(name, name): tensor for name, tensor in inputs.items()}
    theirs = {**inputs, "x": inputs["x"].to(dtype), "y": inputs["y"].to(dtype)}

    def plain(attend: Any) -> Callable[[], torch.Tensor]:
        step = PlainSTDiT3(model.state_dict(), model.config, attend)
        return lambda: step(**theirs)

    with torch.device(device):
        compiled = model_class("STDiT3Transformer3DModel")(**size.config).to(dtype).eval()
    compiled.load_state_dict(model.state_dict(), assign=True)
    compiled.compile_repeated_blocks(fullgraph=True)
    # Both halves of guidance have prompts of one length, so a pipeline can leave the padding, and the mask, out.
    cut = {**ours, "encoder_hidden_states": inputs["y"][:, : int(inputs["mask"].sum())], "encoder_attention_mask": None}
    return {
        "reference, softmax by hand": plain(softmax_attention),
        "reference, torch's attention": plain(F.scaled_dot_product_attention),
        "ours": lambda: model(**ours, return_dict=False)[0],
        "ours, without padding": lambda: model(**cut, return_dict=False)[0],
        "the same, blocks compiled": lambda: compiled(**cut, return_dict=False)[0],
    }


@torch.no_grad()
def run(size: Size, device: str, dtype: torch.dtype, rounds: int) -> list[Case]:
    """Warm up, compare, then time in turns."""
    steps = make_steps(size, device, dtype)
    cases, expected = [], None
    for name, step in steps.items():
        step()
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        output = step()
        expected = output if expected is None else expected
        peak = torch.cuda.max_memory_allocated() if device != "cpu" else None
        difference = ((output - expected).abs().max() / expected.std()).item()
        cases.append(Case(name=name, difference=difference, peak_bytes=peak))
    for _ in range(rounds):
        for case, step in zip(cases, steps.values(), strict=True):
            began = time.perf_counter()
            step()
            if device != "cpu":
                torch.cuda.synchronize()
            case.seconds.append(time.perf_counter() - began)
    return cases


def show(cases: list[Case], dtype: torch.dtype) -> None:
    first = cases[0]
    table = Table("step", "time", "peak memory", "difference")
    for case in cases:
        peak = f"{case.peak_bytes / first.peak_bytes:.2f}" if case.peak_bytes and first.peak_bytes else "-"
        table.add_row(case.name, f"{median(case.seconds) / median(first.seconds):.2f}", peak, f"{case.difference:.1e}")
    Console().print(table)
    Console().print(f"1.00 is {median(first.seconds):.3f} s, in {str(dtype).removeprefix('torch.')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each case")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    dtype = torch.float32 if args.device == "cpu" else torch.bfloat16
    cases = run(SIZES[args.size], args.device, dtype, args.rounds)
    show(cases, dtype)
    if args.json:
        args.json.write_text(json.dumps([asdict(case) for case in cases], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
