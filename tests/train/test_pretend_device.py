"""Runs on a device that is none: whatever is left on the CPU, or taken there for nothing, fails as on a GPU.

In a process of its own, since a device that torch was told of stays. The whole folder goes through in the same way,
by hand: `pytest -p pretend_plugin tests/train`, but for a few tests that look at tensors of their own or use what the
device lacks (flex attention, autocast to float32, tensors made of tensors).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
RUNS = (
    "test_run.py::test_only_what_is_new_changes_and_the_loss_falls",
    "test_edm.py::test_a_run_trains_the_temporal_blocks_and_nothing_else",
    "test_family_runs.py::test_it_trains[ltx2]",
)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments], cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_runs_of_several_families() -> None:
    done = python("-P", "-m", "pytest", "-q", "-p", "pretend_plugin", *(str(TESTS / "train" / run) for run in RUNS))
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{'.' * len(RUNS)} " in done.stdout


MIXED = """
import pytest, torch
from pretend_device import DEVICE, pretending
with pretending():
    there, here = torch.ones(2, 3, device=DEVICE), torch.ones(2, 3)
    assert (there + there).device == DEVICE
    assert torch.equal((there + 1).cpu(), here + 1)
    assert there.sum().item() == 6
    for mistake in (lambda: there + here, lambda: there @ here.T, lambda: torch.cat([there, here])):
        with pytest.raises(RuntimeError, match="expected one device"):
            mistake()
    with pytest.raises(RuntimeError):
        there.numpy()
    with pytest.raises(RuntimeError, match="a generator of the CPU"):
        torch.randn(2, device=DEVICE, generator=torch.Generator())
"""


def test_the_device_minds_what_is_not_on_it() -> None:
    done = python("-P", "-c", MIXED)
    assert done.returncode == 0, done.stderr[-2000:]
