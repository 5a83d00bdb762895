"""Pipelines with two transformers, such as Wan 2.2 A14B: both grow, or the one that is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from growths import grow

from modelgrow.surgery import open_checkpoint


@pytest.fixture
def base(make_pipeline: Callable[[], Path]) -> Path:
    folder = make_pipeline()
    shutil.copytree(folder / "transformer", folder / "transformer_2")
    index = json.loads((folder / "model_index.json").read_text())
    index["transformer_2"] = index["transformer"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def depths(base: Path, output: Path, components: Sequence[str]) -> tuple[int, int]:
    grown = grow(base, output, "suffix", blocks=2, components=components)
    checkpoints = [open_checkpoint(grown / name) for name in ("transformer", "transformer_2")]
    for checkpoint, name in zip(checkpoints, ("transformer", "transformer_2"), strict=True):
        assert (checkpoint.record is not None) == (not components or name in components)
    first, second = (checkpoint.config["num_layers"] for checkpoint in checkpoints)
    return first, second


def test_both_grow(base: Path, tmp_path: Path) -> None:
    assert depths(base, tmp_path / "grown", ()) == (5, 5)


def test_or_the_one_that_is_named(base: Path, tmp_path: Path) -> None:
    assert depths(base, tmp_path / "one", ["transformer_2"]) == (3, 5)
    assert depths(base, tmp_path / "other", ["transformer"]) == (5, 3)
