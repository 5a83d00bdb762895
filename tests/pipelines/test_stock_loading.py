"""A depth-grown pipeline needs no code of ours: a process that can't import modelgrow loads and runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from growths import grow

from modelgrow.pipelines.foundation import foundation_path
from modelgrow.surgery import open_checkpoint

SCRIPT = """
import sys
sys.modules["modelgrow"] = None  # importing it now raises
import torch
from diffusers import DiffusionPipeline

clips, depths = [], []
for folder in sys.argv[1:]:
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.text_encoder, pipeline.transformer, pipeline.vae):
        for tensor in (*part.parameters(), *part.buffers()):
            tensor.data = tensor.data.clone()  # mapped weights are unaligned and take other CPU kernels
    assert type(pipeline.transformer).__module__.startswith("diffusers."), type(pipeline.transformer)
    depths.append(len(pipeline.transformer.blocks))
    generator = torch.Generator().manual_seed(0)
    clips.append(pipeline("a red circle moves right", height=32, width=32, num_frames=5, num_inference_steps=2,
                          generator=generator, output_type="np").frames)
assert not any(name.startswith("modelgrow.") for name in sys.modules)
print("depths", *depths, "equal", bool((clips[0] == clips[1]).all()))
"""


def run_stock(*folders: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, folders)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_grown_foundation(tmp_path: Path) -> None:
    base = foundation_path()
    blocks = open_checkpoint(base / "transformer").config["num_layers"]
    grown = grow(base, tmp_path / "grown", "insert")
    assert run_stock(base, grown) == f"depths {blocks} {2 * blocks} equal True"


def test_the_comparison_can_fail(tiny_pipeline: Path, tmp_path: Path) -> None:
    copied = grow(tiny_pipeline, tmp_path / "copied", "suffix", blocks=1, init="copy")
    assert run_stock(tiny_pipeline, copied) == "depths 2 3 equal False"
