"""On fake tensors a mask takes all, its inverse nothing; on values they would take what they say."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from modelgrow.train.unmasked import Unmasked


def test_masks_cut_nothing() -> None:
    states, mask = torch.randn(5, 3), torch.tensor([True, True, False, True, False])
    assert states[mask].shape == (3, 3), "the control"
    with FakeTensorMode() as fake:
        states, mask = fake.from_tensor(states), fake.from_tensor(mask)
        with pytest.raises(DynamicOutputShapeException):
            states[mask]
        with Unmasked():
            for inverse in (~mask, torch.logical_not(mask), mask.logical_not()):
                assert states[mask].shape == (5, 3)
                assert states[inverse].shape == (0, 3)
            assert states.T[:, mask].shape == (3, 5)
            assert torch.nonzero(mask).shape == (5, 1)
            assert states[1:, None].shape == (4, 1, 3)
            assert states[torch.zeros(2, dtype=torch.long)].shape == (2, 3)
            assert (states == 0).all(), "a condition is true"
