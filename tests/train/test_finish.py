"""What a run leaves: a pipeline, its growth by itself, and cards that say what was trained."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from tiny_runs import bytes_of, settings

from modelgrow.pipelines import load_growth
from modelgrow.surgery import open_checkpoint
from modelgrow.train.result import Result
from modelgrow.train.run import train

CARD = "---\nlicense: apache-2.0\ntags:\n- base\n---\n\n# The base\n\nAs it was.\n"


@pytest.fixture(scope="module")
def finished(grown: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(grown, folder / "grown")
    (folder / "grown" / "README.md").write_text(CARD, encoding="utf-8")
    chosen = settings(folder / "grown", folder / "run", held_out=0.25, validate_every=3)
    return train(chosen), folder


def test_growth_on_its_base_is_the_model(finished: tuple[Result, Path], grown: Path) -> None:
    result, _ = finished
    assert result.growth is not None
    assert {path.name for path in result.growth.iterdir()} == {"growth.safetensors", "README.md"}
    pipelines: list[Any] = [
        DiffusionPipeline.from_pretrained(result.model),
        load_growth(
            DiffusionPipeline.from_pretrained(grown.parent / "base"), str(result.growth / "growth.safetensors")
        ),
        DiffusionPipeline.from_pretrained(grown),
    ]
    model, packed, before = (pipeline.transformer.state_dict() for pipeline in pipelines)
    assert all(torch.equal(packed[name], model[name]) for name in model)
    assert not all(torch.equal(before[name], model[name]) for name in model)


def test_the_card_is_the_runs_own(finished: tuple[Result, Path]) -> None:
    result, folder = finished
    card = (result.model / "README.md").read_text(encoding="utf-8")
    checkpoint = open_checkpoint(result.model / "transformer")
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: diffusers\npipeline_tag: text-to-video\n")
    assert "As it was." not in card
    assert "# grown, trained" in card
    assert "1. `expand mode=suffix blocks=1" in card
    assert f"| what trained | {result.trained_parameters:,} of {checkpoint.num_parameters:,} parameters: what" in card
    assert "| data | `shapes:2-3:8`: clips 8 of 5 x 32 x 32 (frames x height x width) |" in card
    assert "| steps | 6 of 2 clips, 12 in all |" in card
    assert "| time | 0:00:0" in card
    assert f"| loss on held-out clips | {result.validation:.4f} |" in card
    assert (folder / "grown" / "README.md").read_text(encoding="utf-8") == CARD
    assert result.growth is not None
    packed = (result.growth / "README.md").read_text(encoding="utf-8")
    assert "`train data=shapes:2-3:8 clips=8 train=new steps=6 batch_size=2" in packed


def test_a_folders_name_is_told_and_not_its_place(finished: tuple[Result, Path]) -> None:
    result, folder = finished
    for path in (result.model / "README.md", result.model / "transformer" / "growth.json"):
        assert str(folder) not in path.read_text(encoding="utf-8")


def test_without_the_base_a_growth_of_trained_base_weights_is_not_packed(grown: Path, tmp_path: Path) -> None:
    result = train(settings(grown, tmp_path / "run", train="grown-blocks"))
    assert result.growth == tmp_path / "run" / "growth"
    everything = train(settings(grown, tmp_path / "all", train="all"))
    assert everything.growth is None
    assert not (tmp_path / "all" / "growth").exists()
    assert "parameters: every weight |" in (everything.model / "README.md").read_text(encoding="utf-8")
    assert bytes_of(everything.model) != bytes_of(result.model)


def test_what_stays_may_be_linked(grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The VAE's file is the model's own; the transformer's is another one, and the model's is as it was."""
    monkeypatch.setattr("modelgrow.surgery.write._LINK_FROM", 0)  # of bytes: smaller files are copied
    before = bytes_of(grown)
    result = train(settings(grown, tmp_path / "run", link=True))
    vae, transformer = (
        [os.stat(folder / name / "diffusion_pytorch_model.safetensors") for folder in (grown, result.model)]
        for name in ("vae", "transformer")
    )
    assert vae[0].st_ino == vae[1].st_ino
    assert transformer[0].st_ino != transformer[1].st_ino
    assert bytes_of(grown) == before != bytes_of(result.model)
