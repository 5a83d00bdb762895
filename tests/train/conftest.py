"""What several files here train."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import grow_tiny_wan


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan with one block more; `base` beside it is what it was grown from. Not to be written to."""
    return grow_tiny_wan(tmp_path_factory.mktemp("grown"))
