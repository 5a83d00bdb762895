"""What a training step costs: new parameters alone (suffix, insert, prefix), a LoRA, everything; in one go, as ratios.

    python benchmarks/train.py                        tiny, on a CPU
    python benchmarks/train.py --size wan-1.3b        true size with random weights, on a GPU
    python benchmarks/train.py --size cogvideox-2b --json costs.json

Full fine-tuning of the same grown model is 1.00. Operations and kept bytes are counted, not timed; times are
medians of some steps, the optimizer's included.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from modelgrow.pipelines.models import load_model, model_class
from modelgrow.surgery import ExpandOptions, execute, open_checkpoint, open_source, plan_expand, prepare
from modelgrow.train.cost import measure_step
from modelgrow.train.families import family_of
from modelgrow.train.select import add_lora, freeze_all_but, names_to_train

COGVIDEOX, WAN = "CogVideoXTransformer3DModel", "WanTransformer3DModel"


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model and the latents (C, F, h, w) and text (L, D) of one sample."""

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
        latents=(16, 13, 60, 90),
        text=(226, 4096),
        depth=30,
    ),
    "wan-1.3b": Size(
        class_name=WAN,
        config={"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
        latents=(16, 21, 60, 104),
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
    peak_bytes: int | None = None
    seconds: list[float] = field(default_factory=list)


class _Pipeline:
    """What `predict` asks of a pipeline, for a model alone."""

    vae_scale_factor_spatial = 8

    def __init__(self, model: Any) -> None:
        self.transformer = model


@contextmanager
def grown_models(size: Size, dtype: torch.dtype, device: str) -> Iterator[Callable[[str], tuple[Any, Any]]]:
    """Inside, `make(mode)` gives a model with a quarter of its blocks new, and its record."""
    with tempfile.TemporaryDirectory() as work:
        base = Path(work) / "base"
        torch.manual_seed(0)
        with torch.device(device):
            model_class(size.class_name)(**size.config).to(dtype).save_pretrained(base)

        def make(mode: str) -> tuple[Any, Any]:
            folder = Path(work) / mode
            if not folder.exists():
                options = ExpandOptions(mode=mode, blocks=size.depth // 3)
                job = prepare(
                    open_source(str(base)), lambda checkpoint, anatomy: plan_expand(checkpoint, anatomy, options)
                )
                execute(job, folder)
            checkpoint = open_checkpoint(folder)
            return load_model(checkpoint, dtype=dtype, device=device), checkpoint.record

        yield make


def prepare_step(size: Size, make: Callable[[str], tuple[Any, Any]], mode: str, train: str, device: str) -> Any:
    """A model with its choice of parameters, and a function that gives the loss of one sample."""
    model, record = make(mode)
    if train == "lora":
        trained = add_lora(model, rank=16, seed=0)
    else:
        trained = freeze_all_but(model, names_to_train(model, record, train))
    model.train()
    dtype = next((p.dtype for p in model.parameters() if not p.requires_grad), torch.float32)
    generator = torch.Generator().manual_seed(0)
    noisy, text = (torch.randn(1, *shape, generator=generator).to(device, dtype) for shape in (size.latents, size.text))
    family, pipeline = family_of(size.class_name), _Pipeline(model)
    timesteps = torch.full((1,), 500.0, device=device)

    def loss() -> torch.Tensor:
        with torch.autocast(device.split(":", maxsplit=1)[0], torch.bfloat16, enabled=device != "cpu"):
            answer = family.predict(pipeline, model, noisy, timesteps, {"states": text})
        return answer.float().square().mean()

    return model, trained, loss


def run_case(
    size: Size, make: Callable[[str], tuple[Any, Any]], mode: str, train: str, device: str, rounds: int
) -> Case:
    """Count one step, then time some, optimizer included."""
    model, trained, loss = prepare_step(size, make, mode, train, device)
    cost = measure_step(model, loss)
    optimizer = torch.optim.AdamW([parameter for _, parameter in trained], lr=1e-5)
    case = Case(
        name=f"{mode}, {train}",
        trained=sum(parameter.numel() for _, parameter in trained),
        flops=cost.flops,
        saved_bytes=cost.saved_bytes,
    )
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    for number in range(rounds + 1):
        began = time.perf_counter()
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
        if device != "cpu":
            torch.cuda.synchronize()
        if number:
            case.seconds.append(time.perf_counter() - began)
    case.peak_bytes = torch.cuda.max_memory_allocated() if device != "cpu" else None
    return case


def show(cases: list[Case]) -> None:
    full = cases[-1]
    table = Table("grown by, trained", "parameters", "operations", "kept bytes", "peak memory", "time")
    for case in cases:
        peak = f"{case.peak_bytes / full.peak_bytes:.2f}" if case.peak_bytes and full.peak_bytes else "-"
        table.add_row(
            case.name,
            f"{case.trained / 1e6:.1f} M",
            f"{case.flops / full.flops:.2f}",
            f"{case.saved_bytes / full.saved_bytes:.2f}",
            peak,
            f"{median(case.seconds) / median(full.seconds):.2f}",
        )
    Console().print(table)
    Console().print(
        f"full: {median(full.seconds):.3f} s, {full.saved_bytes / 1e9:.2f} GB kept, {full.flops / 1e12:.2f} TFLOP"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each case")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    size = SIZES[args.size]
    dtype = torch.float32 if args.device == "cpu" else torch.bfloat16
    with grown_models(size, dtype, args.device) as make:
        cases = [run_case(size, make, mode, train, device=args.device, rounds=args.rounds) for mode, train in CASES]
    show(cases)
    if args.json:
        args.json.write_text(json.dumps([asdict(case) for case in cases], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
