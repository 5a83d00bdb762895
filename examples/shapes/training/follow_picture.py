"""The picture in docs/llm.md: the foundation's clips above those of a model with a slot, from the same noise.

python -m modelgrow.examples.shapes.training.follow_picture --model runs/slot/model -o docs/llm-slot.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelgrow.pipelines.export import Strip, write_sheet
from modelgrow.pipelines.load import load_pipeline

from .follow import KINDS, SENTENCE, prompts_of
from .measure import generation_settings
from .settings import MEASURE_SEED

SEED = 0
WIDTH = 62
"""Characters of a prompt that have room in a title."""


def prompts() -> list[str]:
    """Two in synonyms, one that says everything."""
    _, long = prompts_of(KINDS["1 object, long"], 8, MEASURE_SEED)[7]
    return [SENTENCE, "a cube in lilac floats southeast", long]


def clip_of(pipeline: Any, prompt: str, **settings: Any) -> np.ndarray:
    """Frames, (T, H, W, 3), uint8."""
    generator = torch.Generator().manual_seed(SEED)
    frames = pipeline(prompt, generator=generator, output_type="np", **settings).frames[0]
    clip: np.ndarray = (255 * frames).round().astype(np.uint8)
    return clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a pipeline folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a PNG")
    args = parser.parse_args()
    models: dict[str, Any] = {
        "before": load_pipeline(None, device="cpu"),
        "with the slot": load_pipeline(args.model, device="cpu"),
    }
    settings = generation_settings(Path(str(models["before"].name_or_path)))
    strips = []
    for prompt in prompts():
        shown = prompt if len(prompt) <= WIDTH else f"{prompt[:WIDTH].rsplit(' ', 1)[0]} ..."
        strips += [
            Strip(title=f"{name}: {shown}", frames=clip_of(pipeline, prompt, **settings))
            for name, pipeline in models.items()
        ]
    write_sheet(strips, args.output, caption="", settings={"prompts": prompts(), "seed": SEED, **settings})


if __name__ == "__main__":
    main()
