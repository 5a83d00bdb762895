"""What a training step costs: new parameters alone (suffix, insert, prefix), a LoRA, everything; in one go, as ratios.

    python benchmarks/train.py                              tiny, on a CPU
    python benchmarks/train.py --size wan-1.3b              true size with random weights, on a GPU
    python benchmarks/train.py --size wan-1.3b --device meta --latent-frames 21
                                                            81 frames: counted and predicted, not run

Full fine-tuning of the same grown model is 1.00. Operations and kept bytes are counted, not timed; times are
medians of some steps, the optimizer's included. Memory is what `grow train` predicts, beside what it came to on a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from modelgrow.pipelines.memory import room
from modelgrow.pipelines.models import model_class
from modelgrow.surgery import Checkpoint, ExpandOptions, Tensor, anatomies, plan_expand
from modelgrow.train.families import family_of
from modelgrow.train.memory import predict_memory
from modelgrow.train.select import add_lora, freeze_all_but

COGVIDEOX, WAN = "CogVideoXTransformer3DModel", "WanTransformer3DModel"


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model and the latents (C, F, h, w) and text (L, D) of one sample; so many frames that a GPU of 80 GB does."""

    class_name: str
    config: dict[str, Any]
    latents: tuple[int, int, int, int]
    text: tuple[int, int]
    depth: int


SIZES = {
    "tiny": Size(
        class_name=COGVIDEOX,
        config={
            "num_attention_heads": 4,
            "attention_head_dim": 32,
            "in_channels": 4,
            "out_channels": 4,
            "text_embed_dim": 64,
            "time_embed_dim": 64,
            "num_layers": 12,
            "sample_frames": 17,
            "sample_height": 16,
            "sample_width": 16,
            "max_text_seq_length": 32,
        },
        latents=(4, 5, 16, 16),
        text=(32, 64),
        depth=12,
    ),
    "cogvideox-2b": Size(
        class_name=COGVIDEOX,
        config={"num_attention_heads": 30, "num_layers": 30},
        latents=(16, 7, 60, 90),
        text=(226, 4096),
        depth=30,
    ),
    "wan-1.3b": Size(
        class_name=WAN,
        config={"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
        latents=(16, 5, 60, 104),
        text=(512, 4096),
        depth=30,
    ),
}
CASES = (("suffix", "new"), ("insert", "new"), ("prefix", "new"), ("suffix", "lora"), ("suffix", "all"))


@dataclass(kw_only=True)
class Case:
    """One choice of what grows and what trains."""

    name: str
    trained: int
    flops: int
    saved_bytes: int
    predicted_bytes: int
    peak_bytes: int | None = None
    seconds: list[float] = field(default_factory=list)


class _Pipeline:
    """What `predict` asks of a pipeline, for a model alone."""

    vae_scale_factor_spatial = 8

    def __init__(self, model: Any) -> None:
        self.transformer = model


def grow(size: Size, mode: str, dtype: torch.dtype, device: str) -> tuple[Any, tuple[str, ...]]:
    """A model with a quarter of its blocks new, all weights random, and the names of those that are new."""
    with torch.device("meta"):
        base = model_class(size.class_name)(**size.config)
    tensors = {
        name: Tensor(dtype="F32", shape=tuple(tensor.shape), file=Path("none"), offset=0, nbytes=0)
        for name, tensor in base.state_dict().items()
    }
    checkpoint = Checkpoint(path=Path("base"), tensors=tensors, config={**base.config, "_class_name": size.class_name})
    options = ExpandOptions(mode=mode, blocks=size.depth // 3)
    plan = plan_expand(checkpoint, anatomies()[size.class_name], options)
    torch.manual_seed(0)
    with torch.device(device):
        model = model_class(size.class_name)(**{**size.config, **plan.config_edits}).to(dtype)
    return model, plan.new_names


def choose(model: Any, new: tuple[str, ...], train: str) -> list[Any]:
    """What trains; all else is frozen."""
    if train == "lora":
        return [parameter for _, parameter in add_lora(model, rank=16, seed=0)]
    names = new if train == "new" else tuple(name for name, _ in model.named_parameters())
    return [parameter for _, parameter in freeze_all_but(model, names)]


def run_case(size: Size, mode: str, train: str, device: str, rounds: int) -> Case:
    """Count one step and predict its memory, then take and time some, optimizer included, unless on "meta"."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model, new = grow(size, mode, dtype, device)
    trained = choose(model, new, train)
    model.train()
    place = torch.device("cpu" if device == "meta" else device)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        name: torch.randn(1, *shape, generator=generator).to(place, dtype)
        for name, shape in (("noisy", size.latents), ("text", size.text))
    } | {"timesteps": torch.full((1,), 500.0, device=place)}
    family, pipeline = family_of(size.class_name), _Pipeline(model)

    def predict(called: Any, given: Mapping[str, Any]) -> torch.Tensor:
        return family.predict(pipeline, called, given["noisy"], given["timesteps"], {"states": given["text"]})

    def autocast() -> torch.autocast:
        return torch.autocast(place.type, torch.bfloat16, enabled=dtype is torch.bfloat16)

    def loss() -> torch.Tensor:
        with autocast():
            return predict(model, inputs).float().square().mean()

    counter: Any = FlopCounterMode(display=False)
    with counter:
        memory = predict_memory(
            model, predict, inputs, optimizer="adamw", average=False, autocast=autocast, device=place
        )
    case = Case(
        name=f"{mode}, {train}",
        trained=sum(parameter.numel() for parameter in trained),
        flops=int(counter.get_total_flops()),
        saved_bytes=memory.activations or 0,
        predicted_bytes=memory.total,
    )
    there = room(place)
    if device != "meta" and there is not None and memory.total > there:
        Console(stderr=True).print(f"{case.name}: not run, for there are {there / 1e9:.1f} GB; {memory.sentence}")
    elif device != "meta":
        take_steps(case, loss, torch.optim.AdamW(trained, lr=1e-5), device, rounds)
    return case


def take_steps(
    case: Case, loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer, device: str, rounds: int
) -> None:
    for number in range(rounds + 1):
        began = time.perf_counter()
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
        if device != "cpu":
            torch.cuda.synchronize()
        if number:
            case.seconds.append(time.perf_counter() - began)
        elif device != "cpu":
            torch.cuda.reset_peak_memory_stats()  # the first step makes the optimizer's state
    case.peak_bytes = torch.cuda.max_memory_allocated() if device != "cpu" else None


def ratio(part: float | None, whole: float | None) -> str:
    return f"{part / whole:.2f}" if part and whole else "-"


def show(cases: list[Case]) -> None:
    full = cases[-1]
    columns = ("parameters", "operations", "kept bytes", "memory", "peak", "predicted of peak", "time")
    table = Table("grown by, trained", *columns)
    times = [median(case.seconds) if case.seconds else None for case in cases]
    for case, seconds in zip(cases, times, strict=True):
        table.add_row(
            case.name,
            f"{case.trained / 1e6:.1f} M",
            ratio(case.flops, full.flops),
            ratio(case.saved_bytes, full.saved_bytes),
            ratio(case.predicted_bytes, full.predicted_bytes),
            ratio(case.peak_bytes, full.peak_bytes),
            ratio(case.predicted_bytes, case.peak_bytes),
            ratio(seconds, times[-1]),
        )
    console = Console(width=110)
    console.print(table)
    took = f"{times[-1]:.3f} s, " if times[-1] else ""
    console.print(
        f"full: {took}{full.predicted_bytes / 1e9:.2f} GB predicted, {full.saved_bytes / 1e9:.2f} GB kept, "
        f"{full.flops / 1e12:.2f} TFLOP"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--latent-frames", type=int, help="in place of the size's own")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each case")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    size, cases = SIZES[args.size], []
    if args.latent_frames:
        size = replace(size, latents=(size.latents[0], args.latent_frames, *size.latents[2:]))
    for mode, train in CASES:
        cases.append(run_case(size, mode, train, device=args.device, rounds=args.rounds))
        gc.collect()  # a model refers to itself, and the next one needs its room
    show(cases)
    if args.json:
        args.json.write_text(json.dumps([asdict(case) for case in cases], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
