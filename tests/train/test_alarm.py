"""The alarm rings for a run that changes nothing, and for no other."""

from __future__ import annotations

import pytest
import torch

from modelgrow.surgery import TrainError
from modelgrow.train.alarm import check, compare

START = {"a": torch.zeros(3), "b": torch.ones(2)}
MOVED = {"a": torch.tensor([0.0, 0.5, 0.0]), "b": torch.ones(2)}
OUT = torch.tensor([1.0, 2.0])


def test_by_hand() -> None:
    changed = compare(START, MOVED, (OUT, OUT + 0.25, OUT - 2))
    assert (changed.moved, changed.tensors, changed.parameters_by) == (1, 2, 0.5)
    assert (changed.output_by, changed.noise) == (2.0, 0.25)
    check(changed, 10)


def test_nothing_moved() -> None:
    with pytest.raises(TrainError, match="after 10 steps no trained parameter has changed"):
        check(compare(START, START, (OUT, OUT, OUT + 1)), 10)


@pytest.mark.parametrize("last", [OUT, OUT + 0.02])
def test_moved_without_effect(last: torch.Tensor) -> None:
    with pytest.raises(TrainError, match="still answers as before"):
        check(compare(START, MOVED, (OUT, OUT + 0.01, last)), 10)
