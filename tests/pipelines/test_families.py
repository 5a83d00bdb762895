"""Other families than Wan, each with its own ways to be called: they generate, and grown they generate the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from growths import grow
from tiny_families import FAMILIES, build_pipeline

from modelgrow.pipelines.generate import GenerateOptions, generate
from modelgrow.pipelines.load import load_pipeline


@pytest.mark.parametrize("name", FAMILIES)
def test_generate(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    folder = build_pipeline(family, tmp_path / "base")
    options = GenerateOptions(prompt="a red circle moves right", num_inference_steps=2, **family.options)
    steps: list[tuple[int, int]] = []
    clip = generate(load_pipeline(folder, device="cpu"), options, progress=lambda *step: steps.append(step))
    assert clip.frames.shape == family.shape
    assert clip.fps == family.fps
    assert clip.frames.std() > 5
    assert steps[-1] == (2, 2)
    other = generate(load_pipeline(folder, device="cpu"), GenerateOptions(**{**vars(options), "seed": 1}))
    assert not np.array_equal(other.frames, clip.frames)


@pytest.mark.parametrize("name", ["cogvideox", "ltx"])
def test_grown_generates_the_same(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    base = build_pipeline(family, tmp_path / "base")
    options = GenerateOptions(prompt="a red circle moves right", num_inference_steps=2, **family.options)

    def digest(folder: Path) -> str:
        return str(generate(load_pipeline(folder, device="cpu"), options).settings["frames_sha256"])

    assert digest(grow(base, tmp_path / "zero")) == digest(base)
    assert digest(grow(base, tmp_path / "copy", init="copy")) != digest(base)
