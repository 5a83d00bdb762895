"""What several files here train."""

from __future__ import annotations

from pathlib import Path

import pytest
from growths import grow
from tiny_adapter import save_adapter, save_stable_diffusion, save_stable_diffusion_xl
from tiny_runs import grow_tiny_wan


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan with one block more; `base` beside it is what it was grown from. Not to be written to."""
    return grow_tiny_wan(tmp_path_factory.mktemp("grown"))


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pipelines `sd` and `sdxl`; motion adapters for them, `adapter` and `adapterxl`, and with one block more in each
    of their modules, `adapter-grown` and `adapterxl-grown`. Not to be written to."""
    folder = tmp_path_factory.mktemp("adapters")
    save_stable_diffusion(folder / "sd")
    save_stable_diffusion_xl(folder / "sdxl")
    grow(save_adapter(folder / "adapter"), folder / "adapter-grown", blocks=1)
    grow(save_adapter(folder / "adapterxl", use_motion_mid_block=False), folder / "adapterxl-grown", blocks=1)
    return folder
