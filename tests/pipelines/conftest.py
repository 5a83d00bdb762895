"""What the tests of pipelines share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_pipelines import save_tiny_wan


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny WanPipeline's folder. Tests only read it."""
    return save_tiny_wan(tmp_path_factory.mktemp("tiny") / "tiny-wan")
