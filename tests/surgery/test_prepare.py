"""What every operation asks of a checkpoint before it plans."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelgrow.surgery import (
    CheckpointError,
    ExpandOptions,
    ExtendOptions,
    GrowError,
    PlanError,
    SourceError,
    execute,
    open_checkpoint,
    open_source,
    plan_expand,
    plan_extend_frames,
    prepare,
)
from modelgrow.surgery.header import write_header
from modelgrow.surgery.index import index_edits
from modelgrow.surgery.pack import prepare_pack
from modelgrow.surgery.plan import Plan
from modelgrow.surgery.shrink import prepare_shrink
from modelgrow.surgery.source import Source

Operation = Callable[..., Any]

OPERATIONS: list[Operation] = [
    lambda checkpoint, anatomy: plan_expand(checkpoint, anatomy, ExpandOptions(mode="insert")),
    lambda checkpoint, anatomy: plan_extend_frames(checkpoint, anatomy, ExtendOptions(to=257)),
]


def refusal(folder: Path, operation: Operation) -> GrowError:
    with pytest.raises(GrowError) as caught:
        prepare(open_source(str(folder)), operation)
    return caught.value


@pytest.mark.parametrize("operation", OPERATIONS)
def test_blocks_that_the_config_does_not_count(make_ltx: Callable[..., Path], operation: Operation) -> None:
    """Also where the operation has no use for blocks: what it wrote could not be opened again."""
    folder = make_ltx(depth=3)
    prepare(open_source(str(folder)), operation)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_layers": 4}))
    error = refusal(folder, operation)
    assert isinstance(error, CheckpointError)
    assert "num_layers = 4, the tensors hold blocks 0-2" in str(error)


def test_paths_and_texts_are_alike(make_ltx: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_ltx()
    assert open_checkpoint(str(folder)).tensors == open_checkpoint(folder).tensors
    assert open_source(folder).name == open_source(str(folder)).name == "base"
    assert execute(prepare(open_source(folder), OPERATIONS[0]), str(tmp_path / "grown")) == tmp_path / "grown"
    with pytest.raises(SourceError, match="no such folder or file"):
        open_source(tmp_path / "nothing")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_weights_that_bitsandbytes_packed(tmp_path: Path, operation: Operation) -> None:
    """A byte of zeros is two values of -1 in nf4, so that a copy could not be silenced."""
    tensors: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for name in ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2"):
        tensors[f"transformer_blocks.0.{name}.weight"] = ("U8", (8, 1), 8)
        tensors[f"transformer_blocks.0.{name}.weight.absmax"] = ("F32", (1,), 4)
        tensors[f"transformer_blocks.0.{name}.weight.quant_state.bitsandbytes__nf4"] = ("U8", (2,), 2)
    size = sum(nbytes for _, _, nbytes in tensors.values())
    (tmp_path / "model.safetensors").write_bytes(write_header(tensors, {}) + bytes(size))
    (tmp_path / "config.json").write_text('{"_class_name": "LTXVideoTransformer3DModel", "num_layers": 1}')
    error = refusal(tmp_path, operation)
    assert isinstance(error, PlanError)
    assert "'transformer_blocks.0.attn1.to_out.0.weight' is packed in 4 bits by bitsandbytes" in str(error)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_extension_that_nobody_wrote(make_ltx: Callable[..., Path], operation: Operation) -> None:
    folder = make_ltx()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "frame_extension": 8}))
    assert "frame_extension is 8, expected what 'grow extend-frames' writes" in str(refusal(folder, operation))


@pytest.mark.parametrize("prepare_back", [prepare_shrink, prepare_pack])
def test_the_way_back_asks_the_same(
    make_ltx: Callable[..., Path], tmp_path: Path, prepare_back: Callable[[Source], Any]
) -> None:
    grown = execute(prepare(open_source(str(make_ltx())), OPERATIONS[0]), tmp_path / "grown")
    prepare_back(open_source(str(grown)))
    config = json.loads((grown / "config.json").read_text())
    (grown / "config.json").write_text(json.dumps({**config, "num_layers": "6"}))
    with pytest.raises(CheckpointError, match="num_layers = '6', expected a number of blocks"):
        prepare_back(open_source(str(grown)))


def test_a_class_of_somebody_elses_library_is_not_replaced() -> None:
    """A record of it could not be read again: what a growth may have a pipeline import is a short list."""
    edits = {"_class_name": "GrownLTXVideoTransformer3DModel"}
    plan = Plan(operation="any", options={}, class_name="LTXVideoTransformer3DModel", tensors=(), config_edits=edits)
    for library, is_fine in (("diffusers", True), ("modelgrow.pipelines", True), ("my_transformer", False)):
        index = {"transformer": [library, "LTXVideoTransformer3DModel"]}
        if is_fine:
            entry = ["modelgrow.pipelines", "GrownLTXVideoTransformer3DModel"]
            assert index_edits(index, {"transformer": plan}) == {"transformer": entry}
        else:
            with pytest.raises(PlanError, match=r"transformer is \['my_transformer', .* Grow the component's folder"):
                index_edits(index, {"transformer": plan})
