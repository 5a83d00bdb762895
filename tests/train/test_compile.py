"""torch.compile of the repeated blocks: the same training, compiled."""

from __future__ import annotations

import shutil
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from tiny_runs import bytes_of, floats, settings

from modelgrow.surgery import open_checkpoint
from modelgrow.train.run import train

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a compiler")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=[pytest.mark.long, needs_compiler])])
@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_compiled_blocks_learn_the_same(
    grown: Path, tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_blocks = partialmethod(WanTransformer3DModel.compile_repeated_blocks, backend=backend)
    monkeypatch.setattr(WanTransformer3DModel, "compile_repeated_blocks", compile_blocks)
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    plain = train(settings(grown, tmp_path / "plain", steps=3))
    assert graphs["unique_graphs"] == before
    compiled = train(settings(grown, tmp_path / "compiled", steps=3, compile=True))
    assert graphs["unique_graphs"] > before
    record = open_checkpoint(plain.model / "transformer").record
    assert record is not None
    found, expected = bytes_of(compiled.model), bytes_of(plain.model)
    assert found.keys() == expected.keys()
    for name in record.new:
        torch.testing.assert_close(floats(found[name]), floats(expected[name]), rtol=1e-3, atol=1e-5)
    assert found != bytes_of(grown)
