"""The demo, on the foundation that ships: what it leaves, and that it would say so if growth were not exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from modelgrow.examples import demo
from modelgrow.pipelines.foundation import foundation_path
from modelgrow.pipelines.generate import GenerateOptions, generate
from modelgrow.pipelines.load import load_pipeline
from modelgrow.surgery import ExpandOptions, GenerateError, OutputError


def foundation_is_there() -> bool:
    try:
        return foundation_path().is_dir()
    except GenerateError:
        return False


pytestmark = pytest.mark.skipif(not foundation_is_there(), reason="the foundation is not in this clone")

FILES = {
    "base.gif",
    "base.json",
    "base.mp4",
    "comparison.png",
    "grown-pipeline",
    "grown.gif",
    "grown.json",
    "grown.mp4",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[demo.DemoResult, Path, list[str]]:
    output = tmp_path_factory.mktemp("demo") / "grow-demo"
    said: list[str] = []
    return demo.run_demo(output, report=said.append), output, said


def gif_frames(path: Path) -> list[np.ndarray]:
    with Image.open(path) as clip:
        frames = []
        for number in range(getattr(clip, "n_frames", 1)):
            clip.seek(number)
            frames.append(np.asarray(clip.convert("RGB")))
    return frames


def test_what_it_leaves(finished: tuple[demo.DemoResult, Path, list[str]]) -> None:
    result, output, said = finished
    assert result.identical
    assert result.sentence.startswith("The same clip from the same seed, to the bit. The same function")
    assert {path.name for path in output.iterdir()} == FILES
    assert all(path.exists() and path.parent == output for path in result.paths)
    assert [path.name for path in output.parent.iterdir()] == ["grow-demo"]
    assert "growing it by 3 blocks (insert)" in said
    base, grown = gif_frames(output / "base.gif"), gif_frames(output / "grown.gif")
    assert len(base) == len(grown) > 1
    assert all(np.array_equal(a, b) for a, b in zip(base, grown, strict=True))
    assert not np.array_equal(base[0], base[-1])


def test_what_it_says(finished: tuple[demo.DemoResult, Path, list[str]]) -> None:
    result, _, _ = finished
    rows = {label: (base, grown) for label, base, grown in result.rows}
    base_blocks, grown_blocks = map(int, rows["transformer blocks"])
    assert grown_blocks == base_blocks + 3
    base_count, grown_count = (int(text.replace(",", "")) for text in rows["its parameters"])
    assert base_count < grown_count
    assert rows["the reader sees"] == ("a red circle moves right", "a red circle moves right")
    assert rows["SHA-256 of the frames"][0] == rows["SHA-256 of the frames"][1]


def test_grown_pipeline_makes_the_clip_by_its_sidecar(finished: tuple[demo.DemoResult, Path, list[str]]) -> None:
    _, output, _ = finished
    settings = json.loads((output / "grown.json").read_text(encoding="utf-8"))["settings"]
    base = json.loads((output / "base.json").read_text(encoding="utf-8"))["settings"]
    assert settings["model"] == str(output / "grown-pipeline")
    assert base["model"] is None
    assert {**settings, "model": None} == base
    torch.set_num_threads(settings["threads"])
    pipeline: Any = load_pipeline(settings["model"], device="cpu", dtype="float32")
    again = generate(pipeline, GenerateOptions.from_settings(settings))
    assert again.settings == settings
    with Image.open(output / "comparison.png") as sheet:
        assert json.loads(sheet.info["settings"]) == {"base": base, "grown": settings}


def test_existing_output_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    said: list[str] = []
    with pytest.raises(OutputError, match="exists already"):
        demo.run_demo(tmp_path, report=said.append)
    assert said == []
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_growth_that_is_not_exact_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "GROWTH", ExpandOptions(mode="insert", blocks=3, init="copy"))
    output = tmp_path / "out"
    output.mkdir()
    result = demo.run_demo(output, seed=1, overwrite=True)
    assert not result.identical
    assert result.sentence.startswith("The clips differ in ")
    assert "NOT the same function" in result.sentence
    assert {path.name for path in output.iterdir()} == FILES
