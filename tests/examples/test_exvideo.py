"""The example runs as it stands, on a tiny extended Stable Video Diffusion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_svd import save_tiny_exvideo

from modelgrow.examples.exvideo import main


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_example_runs(tmp_path: Path) -> None:
    model = save_tiny_exvideo(tmp_path / "model", num_position_frames=6)
    Image.new("RGB", (20, 30), "red").save(tmp_path / "red.png")
    clip = tmp_path / "clip.gif"
    words = [str(model), str(tmp_path / "red.png"), "--size", "16", "--steps", "2", "-o", str(clip)]
    main(words)
    assert sorted(path.name for path in tmp_path.glob("*.gif")) == ["clip.gif"]
    main([*words, "--second-stage"])
    for path, side in ((clip, 16), (tmp_path / "clip-2x.gif", 32)):
        with Image.open(path) as gif:
            assert gif.size == (side, side)
            assert getattr(gif, "n_frames", 1) == 6
            assert np.asarray(gif.convert("RGB")).std() > 1
