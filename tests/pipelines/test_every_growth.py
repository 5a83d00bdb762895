"""Every architecture and stack: packed, put back, loaded, taken back. The bytes, without running anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, Architecture
from growths import grow, pack, snapshot, unpack
from models import save

from modelgrow.pipelines import load_growth
from modelgrow.pipelines.models import load_model
from modelgrow.surgery import PlanError, Stack, anatomies, execute, open_checkpoint, open_source
from modelgrow.surgery.compare import broken_promises
from modelgrow.surgery.readback import read_chunks
from modelgrow.surgery.shrink import prepare_shrink

CASES = [
    pytest.param(row, stack, id=f"{row.name}-{stack.name}")
    for row in ARCHITECTURES
    for stack in anatomies()[row.class_name].stacks
]
Held = dict[str, tuple[str, tuple[int, ...], bytes]]


def held(folder: Path) -> Held:
    tensors = open_checkpoint(folder).tensors
    return {name: (t.dtype, t.shape, b"".join(read_chunks(t))) for name, t in tensors.items()}


@pytest.mark.parametrize(("row", "stack"), CASES)
def test_out_and_back(row: Architecture, stack: Stack, tmp_path: Path) -> None:
    base = save(tmp_path / "base", row.class_name, row.tiny)
    before, config = held(base), open_checkpoint(base).config
    done = 0
    for mode in ("insert", "suffix"):
        try:
            grown = grow(base, tmp_path / mode, mode=mode, stack=stack.name, allow_inexact=True)
        except PlanError:
            continue
        done += 1
        assert broken_promises(open_checkpoint(grown), open_checkpoint(base)) == ()
        again = execute(prepare_shrink(open_source(str(grown))), tmp_path / f"{mode}-again")
        assert held(again) == before != held(grown)
        assert open_checkpoint(again).config == config
        packing = pack(grown, tmp_path / f"{mode}.safetensors")
        assert sum(len(keys) for keys in packing.packed.values()) < len(packing.checkpoints[""].tensors)
        assert snapshot(unpack(tmp_path / f"{mode}.safetensors", base, tmp_path / f"{mode}-put")) == snapshot(grown)
        if mode == "insert":
            _check_loaded(base, grown, tmp_path / "insert.safetensors")
    assert done


def _check_loaded(base: Path, grown: Path, growth: Path) -> None:
    expected = load_model(open_checkpoint(grown), dtype=torch.float32)
    model = load_growth(load_model(open_checkpoint(base), dtype=torch.float32), growth)
    state, buffers = expected.state_dict(), dict(expected.named_buffers())
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    ours = {key: value for key, value in model.config.items() if key != "_name_or_path"}
    assert ours == {key: value for key, value in expected.config.items() if key != "_name_or_path"}
