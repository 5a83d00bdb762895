"""Settings on the command line, and what a run's folder holds its next session to."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import settings

from modelgrow.surgery import TrainError
from modelgrow.train.keep import SETTINGS_NAME, keep_settings
from modelgrow.train.settings import parse_settings, read_settings


def test_settings_as_words() -> None:
    found = parse_settings(
        ["shift=5.0", "schedule = cosine", 'data="a = b"', "steps=3", "compile=true", "output=./x=y"]
    )
    assert found == {
        "shift": 5.0,
        "schedule": "cosine",
        "data": "a = b",
        "steps": 3,
        "compile": True,
        "output": "./x=y",
    }
    for text in ("shift", "=5", "a.b=1"):
        with pytest.raises(TrainError, match="expected KEY=VALUE"):
            parse_settings([text])


def test_what_may_change_and_what_not(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-00000005").mkdir(parents=True)
    first = settings(tmp_path / "model", tmp_path, save_every=5)
    keep_settings(first, tmp_path)
    keep_settings(settings(tmp_path / "model", tmp_path, save_every=7, steps=9), tmp_path)
    saved = read_settings(tmp_path / SETTINGS_NAME, {})
    assert (saved.save_every, saved.steps) == (7, 9)
    with pytest.raises(TrainError, match=r"seed was 0, is 1; shift was None, is 3.0"):
        keep_settings(settings(tmp_path / "model", tmp_path, seed=1, shift=3.0), tmp_path)
    assert read_settings(tmp_path / SETTINGS_NAME, {}) == saved
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", SETTINGS_NAME]


def test_all_may_change_before_the_first_checkpoint(tmp_path: Path) -> None:
    """What was wrong with them may be why there is none."""
    keep_settings(settings(tmp_path / "model", tmp_path, num_frames=500), tmp_path)
    keep_settings(settings(tmp_path / "model", tmp_path, num_frames=5, shift=3.0), tmp_path)
    saved = read_settings(tmp_path / SETTINGS_NAME, {})
    assert (saved.num_frames, saved.shift) == (5, 3.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("learning_rate=nan", "learning_rate is nan; it must be a finite number"),
        ("shift=inf", "shift is inf; it must be a finite number"),
        ("height=0", "height is 0; it must be at least 1"),
    ],
)
def test_numbers_that_can_not_be(words: str, message: str) -> None:
    with pytest.raises(TrainError, match=message):
        read_settings(None, {"model": "m", "data": "shapes", "output": "o", **parse_settings([words])})


@pytest.mark.parametrize(("place", "what"), [("model", "model"), ("model/run", "model"), ("clips/run", "data")])
def test_nothing_is_written_where_the_run_reads(tmp_path: Path, place: str, what: str) -> None:
    for name in ("model", "clips"):
        (tmp_path / name).mkdir()
    run = settings(tmp_path / "model", tmp_path / place, data=str(tmp_path / "clips"))
    with pytest.raises(TrainError, match=f"is the {what} .*, or lies in it, and that is only read"):
        keep_settings(run, tmp_path / place)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["clips", "model"]
    keep_settings(run, tmp_path)  # which holds both


def test_a_setting_that_an_older_version_did_not_know(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-00000005").mkdir(parents=True)
    run = settings(tmp_path / "model", tmp_path)
    keep_settings(run, tmp_path)
    path = tmp_path / SETTINGS_NAME
    lines = [line for line in path.read_text().splitlines() if not line.startswith("contrast ")]
    path.write_text("\n".join(lines))
    keep_settings(run, tmp_path)
    path.write_text("\n".join(lines))
    with pytest.raises(TrainError, match=r"contrast was 1\.0, is 1\.2"):
        keep_settings(settings(tmp_path / "model", tmp_path, contrast=1.2), tmp_path)
