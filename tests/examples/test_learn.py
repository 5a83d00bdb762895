"""The demo's training: that it happens, that it is measured by the same prompts on both sides, and what it leaves."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelgrow.commands.demo import demo as command
from modelgrow.examples import demo, learn
from modelgrow.examples.learn import OBJECTS, PROMPTS, STEPS, Change, Learned, changes
from modelgrow.examples.read_model import ASPECTS, Reading, read_model
from modelgrow.pipelines.foundation import foundation_path
from modelgrow.surgery import open_checkpoint


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Learned, tuple[Path, ...], Path]:
    output = tmp_path_factory.mktemp("learn") / "grow-demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn, "CLIPS", 16)
        demo.run_demo(output)
        return *demo.teach(output, steps=2, prompts=2, workers=0), output


@pytest.mark.slow
def test_what_the_training_leaves(finished: tuple[Learned, tuple[Path, ...], Path]) -> None:
    learned, paths, output = finished
    assert paths == (output / "learned.png", output / "run" / "model", output / "run" / "growth")
    assert learned.run.model == paths[1]
    assert {path.name for path in output.iterdir()} >= {"grown-pipeline", "run", "learned.png", "comparison.png"}
    assert all(path.exists() for path in paths)
    assert not (output / "run" / "cache").exists()
    with Image.open(output / "learned.png") as sheet:
        assert "training" in sheet.info["settings"]
    record = open_checkpoint(output / "run" / "model" / "transformer").record
    assert record is not None
    assert [step.operation for step in record.steps] == ["expand", "train"]
    assert record.steps[1].options["data"] == "shapes:2-3:16"


@pytest.mark.slow
def test_every_kind_of_prompt_is_measured(finished: tuple[Learned, tuple[Path, ...], Path]) -> None:
    learned = finished[0]
    assert [(c.objects, c.aspect) for c in learned.changes] == [(n, aspect) for n in OBJECTS for aspect in ASPECTS]
    assert all(0 <= share <= 1 for change in learned.changes for share in (change.base, change.trained))
    base = read_model(foundation_path(), 1, 2)
    assert [change.base for change in learned.changes if change.objects == 1] == list(base.values.mean(axis=0))
    prompt, old, new = learned.pairs[-1]
    assert prompt == base.clips[0][0]
    assert np.array_equal(old, base.clips[0][1])
    assert not np.array_equal(old, new)
    assert learned.sentence.startswith("Two and three objects: ")


def test_changes_by_hand() -> None:
    before = Reading(values=np.array([[0.0] * 5, [1.0] * 5, [0.0] * 5, [1.0] * 5]), clips=())
    after = Reading(
        values=np.array([[1.0, 0.0, 1.0, 0.0, 0.0], [1.0] * 5, [1.0, 0.0, 0.0, 0.0, 0.0], [1.0] * 5]), clips=()
    )
    found = list(changes(2, before, after))
    assert (found[0].objects, found[0].aspect, found[0].base, found[0].trained) == (2, "colors", 0.5, 1.0)
    assert found[0].error == pytest.approx(np.sqrt(1 / 3) / 2)
    assert (found[0].rose, found[0].fell) == (False, False)
    assert found[1].error == 0.0
    assert not found[1].rose
    better = Change(objects=2, aspect="count", base=0.4, trained=0.6, error=0.05)
    assert better.rose
    assert not better.fell
    assert Change(objects=2, aspect="count", base=0.6, trained=0.4, error=0.05).fell


def test_the_commands_defaults_are_the_demos() -> None:
    given = inspect.signature(command).parameters
    assert (given["steps"].default, given["prompts"].default) == (STEPS, PROMPTS)
