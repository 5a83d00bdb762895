"""The reference's own numbers for ExVideo (DiffSynth-Studio 1.1.9 run on the CPU in float32), and how to reach them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from modelgrow.pipelines.exvideo.sinusoids import sinusoids
from modelgrow.surgery import execute, open_source, prepare
from modelgrow.surgery.exvideo import plan_exvideo
from modelgrow.surgery.exvideo_weights import prepare_weights

GOLDENS = Path(__file__).parent / "goldens" / "exvideo"
SVD = "UNetSpatioTemporalConditionModel"
EXVIDEO = "ExVideoUNetSpatioTemporalConditionModel"


def base_of(case: str) -> Path:
    return GOLDENS / case / "base"


def extension_of(case: str) -> Path:
    return GOLDENS / case / "extension.diffsynth.safetensors"


def apply_weights(case: str, output: Path) -> Path:
    """The case's extension on its base, as `grow apply` makes it."""
    return execute(prepare_weights(extension_of(case), open_source(str(base_of(case)))), output)


def extend(base: Path, output: Path, num_frames: int) -> Path:
    """A base extended and not trained, as `grow extend-frames` makes it."""
    job = prepare(
        open_source(str(base)), lambda held, anatomy: plan_exvideo(held, anatomy, num_frames, table_of=sinusoids)
    )
    return execute(job, output)


def save_pipeline(case: str, folder: Path) -> Path:
    """A pipeline's folder around the case's base, as far as surgery cares: an index as diffusers writes it."""
    shutil.copytree(base_of(case), folder / "unet")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    index = {
        "_class_name": "StableVideoDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "unet": ["diffusers", SVD],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    return folder


def tensors_of(name: str) -> dict[str, torch.Tensor]:
    """A file of the goldens."""
    return load_file(GOLDENS / name)


@torch.no_grad()
def run_case(model: Any, case: str) -> torch.Tensor:
    """The model's answer to the case's inputs, (T, 4, H, W)."""
    inputs = tensors_of(f"{case}/inputs.safetensors")
    output: torch.Tensor = model(
        inputs["sample"][None],
        inputs["timestep"],
        inputs["encoder_hidden_states"][None],
        inputs["add_time_id"],
        return_dict=False,
    )[0]
    return output[0]
