"""Held-out clips: never trained on, measured with the same draws each time, and a line of their own in the curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tiny_runs import settings

from modelgrow.surgery import DataError, TrainError
from modelgrow.train import checkpoints
from modelgrow.train.cache import Cache
from modelgrow.train.loop import Loop
from modelgrow.train.run import train
from modelgrow.train.setup import set_up
from modelgrow.train.validate import hold_out


def test_held_out_clips_are_not_trained_on(grown: Path, tmp_path: Path) -> None:
    run = set_up(settings(grown, tmp_path / "run", held_out=0.25), lambda _: None)
    held = {clip for bucket in run.held_out for clip in bucket.clips}
    assert len(held) == 2
    seen = {clip for number in range(40) for clip in run.batch(number).clips}
    assert seen == set(range(8)) - held


def test_which_are_held_out_follows_from_their_keys(grown: Path, tmp_path: Path) -> None:
    runs = [set_up(settings(grown, tmp_path / str(s), held_out=0.25, seed=s), lambda _: None) for s in (0, 1)]
    assert runs[0].held_out == runs[1].held_out
    cache = Cache(tmp_path / "0" / "cache")
    half = {clip for bucket in hold_out(cache, 0.5)[1] for clip in bucket.clips}
    assert {clip for bucket in runs[0].held_out for clip in bucket.clips} < half
    assert hold_out(cache, 0.0) == (cache, ())
    with pytest.raises(DataError, match="leaves none to train on"):
        hold_out(cache, 0.99)
    with pytest.raises(TrainError, match="held_out is"):
        settings(grown, tmp_path / "run", held_out=1.0)


def test_the_loss_is_the_mean_over_all_draws_of_all_held_out_clips(grown: Path, tmp_path: Path) -> None:
    """Batches that do not come out even count by their size."""
    loops = [
        Loop(
            run=set_up(settings(grown, tmp_path / str(size), held_out=0.25, batch_size=size), lambda _: None),
            report=lambda _: None,
        )
        for size in (3, 8)
    ]
    values = [loop.held_out.loss() for loop in loops if loop.held_out]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert loops[0].held_out is not None
    assert loops[0].held_out.loss() == values[0]
    assert loops[0].run.model.training


def test_the_best_checkpoint_is_the_one_that_held_out_clips_call_best(grown: Path, tmp_path: Path) -> None:
    seen: list[Any] = []
    chosen = settings(
        grown, tmp_path / "run", held_out=0.25, validate_every=2, save_every=2, keep=9, tracker="tensorboard"
    )
    result = train(chosen, report=seen.append)
    folder = tmp_path / "run"
    events = EventAccumulator(str(folder / "logs" / "modelgrow")).Reload()
    line = {event.step: event.value for event in events.Scalars("validation_loss")}
    assert sorted(line) == [0, 2, 4, 6]
    assert len(events.Scalars("loss")) == 6
    assert result.validation == pytest.approx(line[6])
    assert [progress.validation for progress in seen] == pytest.approx([line[n] for n in (0, 0, 2, 2, 4, 4)])
    last = checkpoints.load(checkpoints.all_of(folder / "checkpoints")[-1])
    assert last.best_loss == pytest.approx(min(line[n] for n in (2, 4, 6)))
    assert line[last.best_step] == pytest.approx(last.best_loss)


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_tracker_that_is_not_installed_says_so(
    grown: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelgrow.train.engine.get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(TrainError, match=f"tracker {name} is not installed: pip install {name}"):
        train(settings(grown, tmp_path / "run", tracker=name))
