"""Layers of a spatio-temporal UNet: where new ones go, what they are made of, what is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from modelgrow.surgery import (
    Checkpoint,
    CheckpointError,
    ExpandOptions,
    Plan,
    PlanError,
    Tensor,
    anatomies,
    plan_expand,
)
from modelgrow.surgery.content import Copy, Values, Zeros
from modelgrow.surgery.identity import identity_beside_zeros

ANATOMY = anatomies()["UNetSpatioTemporalConditionModel"]
WIDTHS = (2, 4)


def resnet(prefix: str, width: int, reads: int) -> dict[str, tuple[int, ...]]:
    spatial, temporal = f"{prefix}.spatial_res_block", f"{prefix}.temporal_res_block"
    shapes: dict[str, tuple[int, ...]] = {
        f"{spatial}.conv1.weight": (width, reads, 3, 3),
        f"{spatial}.conv2.weight": (width, width, 3, 3),
        f"{spatial}.conv2.bias": (width,),
        f"{temporal}.conv2.weight": (width, width, 3, 1, 1),
        f"{temporal}.conv2.bias": (width,),
        f"{prefix}.time_mixer.mix_factor": (1,),
    }
    if reads != width:
        shapes |= {f"{spatial}.conv_shortcut.weight": (width, reads, 1, 1), f"{spatial}.conv_shortcut.bias": (width,)}
    return shapes


def attention(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.proj_in.weight": (width, width),
        f"{prefix}.proj_out.weight": (width, width),
        f"{prefix}.proj_out.bias": (width,),
        f"{prefix}.time_mixer.mix_factor": (1,),
    }


def unet(layers: tuple[int, int] = (2, 2), *, dtype: str = "F32", said: Any = 2, **config: Any) -> Checkpoint:
    """Two down and two up blocks; attention in the wide-open ones, as in SVD's layout."""
    shapes: dict[str, tuple[int, ...]] = {"conv_in.weight": (2, 8, 3, 3)}
    for i, count in enumerate(layers):
        for j in range(count):
            shapes |= resnet(f"down_blocks.{i}.resnets.{j}", WIDTHS[i], WIDTHS[i] if j else WIDTHS[0])
            if i == 0:
                shapes |= attention(f"down_blocks.0.attentions.{j}", WIDTHS[0])
    for i, count in enumerate(reversed(layers)):
        width = WIDTHS[1 - i]
        for j in range(count + 1):
            reads = (width if j else WIDTHS[1]) + (width if j < count else WIDTHS[0])
            shapes |= resnet(f"up_blocks.{i}.resnets.{j}", width, reads)
            if i == 1:
                shapes |= attention(f"up_blocks.1.attentions.{j}", WIDTHS[0])
    tensors = {n: Tensor(dtype=dtype, shape=s, file=Path("w"), offset=0, nbytes=0) for n, s in shapes.items()}
    return Checkpoint(
        path=Path("unet"),
        tensors=tensors,
        config={"_class_name": ANATOMY.class_name, "layers_per_block": said, **config},
    )


def plan(checkpoint: Checkpoint, **options: Any) -> Plan:
    return plan_expand(checkpoint, ANATOMY, ExpandOptions(**{"mode": "insert", "stack": "layers", **options}))


def test_places_of_new_layers() -> None:
    base = unet()
    grown = plan(base)
    grown.validate(base)
    assert grown.config_edits == {"layers_per_block": 3}
    assert grown.index_map == {
        "down_blocks.0.resnets": (0, 1),
        "down_blocks.0.attentions": (0, 1),
        "down_blocks.1.resnets": (0, 1),
        "up_blocks.0.resnets": (0, 2, 3),
        "up_blocks.1.resnets": (0, 2, 3),
        "up_blocks.1.attentions": (0, 2, 3),
    }
    assert grown.copied_from == {
        "down_blocks.0.resnets": {2: 1},
        "down_blocks.0.attentions": {2: 1},
        "down_blocks.1.resnets": {2: 1},
        "up_blocks.0.resnets": {1: 1},
        "up_blocks.1.resnets": {1: 1},
        "up_blocks.1.attentions": {1: 1},
    }
    assert grown.renamed["up_blocks.0.resnets.1.time_mixer.mix_factor"] == "up_blocks.0.resnets.2.time_mixer.mix_factor"
    assert grown.options == {"mode": "insert", "blocks": 1, "stack": "layers", "init": "zero"}


def test_uneven_layers_and_more_than_one() -> None:
    base = unet((2, 3), said=[2, 3])
    grown = plan(base, blocks=2)
    grown.validate(base)
    assert grown.config_edits == {"layers_per_block": [4, 5]}
    assert grown.index_map["down_blocks.1.resnets"] == (0, 1, 2)
    assert grown.copied_from["down_blocks.1.resnets"] == {3: 2, 4: 2}
    assert grown.index_map["up_blocks.0.resnets"] == (0, 3, 4, 5)  # the up blocks go backwards
    assert grown.copied_from["up_blocks.0.resnets"] == {1: 1, 2: 1}
    assert grown.index_map["up_blocks.1.resnets"] == (0, 3, 4)


def test_what_a_new_layer_is_made_of() -> None:
    base = unet()
    made = {tensor.name: tensor.content for tensor in plan(base).tensors if tensor.is_new}
    up = "up_blocks.1.resnets.1"
    identity = struct.pack("<8f", 1, 0, 0, 0, 0, 1, 0, 0)  # 2 rows of 4: the stream, then the skip
    assert made[f"{up}.spatial_res_block.conv_shortcut.weight"] == Values(data=identity)
    zero = {name.removeprefix(f"{up}.") for name, content in made.items() if isinstance(content, Zeros) and up in name}
    assert zero == {
        "spatial_res_block.conv2.weight",
        "spatial_res_block.conv2.bias",
        "spatial_res_block.conv_shortcut.bias",
        "temporal_res_block.conv2.weight",
        "temporal_res_block.conv2.bias",
        "time_mixer.mix_factor",
    }
    assert made[f"{up}.spatial_res_block.conv1.weight"] == Copy(source=f"{up}.spatial_res_block.conv1.weight")
    side = "up_blocks.1.attentions.1"
    assert made[f"{side}.proj_out.weight"] == Zeros() == made[f"{side}.proj_out.bias"]
    # A zero proj_out silences the attention whatever it blends, so that trained number stays.
    assert made[f"{side}.time_mixer.mix_factor"] == Copy(source=f"{side}.time_mixer.mix_factor")
    down = "down_blocks.1.resnets.2"
    assert made[f"{down}.time_mixer.mix_factor"] == Zeros()
    assert f"{down}.spatial_res_block.conv_shortcut.weight" not in made


def test_plain_copies() -> None:
    grown = plan(unet(), init="copy")
    assert all(isinstance(tensor.content, Copy) for tensor in grown.tensors)
    assert any("does NOT compute" in note for note in grown.notes)


@pytest.mark.parametrize("layers", [(1, 1), (2, 1)])
def test_blocks_of_one_layer_are_refused(layers: tuple[int, int]) -> None:
    with pytest.raises(PlanError, match="at least 2"):
        plan(unet(layers, said=list(layers)))


@pytest.mark.parametrize("mode", ["prefix", "suffix"])
def test_other_modes_are_refused(mode: str) -> None:
    with pytest.raises(PlanError, match="only --mode insert"):
        plan(unet(), mode=mode, allow_inexact=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"group": 2}, "--group 2"), ({"blocks": 0}, "at least 1 layer"), ({"init": "ones"}, "unknown init")],
)
def test_options_without_meaning(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(unet(), **options)


def test_depths_of_single_layers_are_refused() -> None:
    plan(unet(transformer_layers_per_block=[1, 2]))
    with pytest.raises(PlanError, match="names every layer by itself"):
        plan(unet(transformer_layers_per_block=[[1, 1, 1], [2, 2, 2]]))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (3, "makes 3 layers in down_blocks.0.resnets, the tensors hold 0-1"),
        ([2, 2, 2], "make 3 blocks"),
        ("2", "expected numbers of layers"),
        ([2, True], "expected numbers of layers"),
        ([], "expected numbers of layers"),
    ],
)
def test_config_and_tensors_disagree(said: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        plan(unet(said=said))


def test_a_layer_without_its_last_projection() -> None:
    base = unet()
    tensors = {n: t for n, t in base.tensors.items() if n != "up_blocks.1.attentions.2.proj_out.weight"}
    with pytest.raises(CheckpointError, match=r"up_blocks.1.attentions.2.proj_out.weight is not in the file"):
        plan(Checkpoint(path=base.path, tensors=tensors, config=base.config))


@pytest.mark.parametrize(
    ("dtype", "one", "zero"),
    [
        ("F64", "000000000000f03f", "0000000000000000"),
        ("F32", "0000803f", "00000000"),
        ("F16", "003c", "0000"),
        ("BF16", "803f", "0000"),
    ],
)
def test_identity_in_every_dtype(dtype: str, one: str, zero: str) -> None:
    data = identity_beside_zeros(dtype, (2, 3, 1, 1), where="w")
    assert data.hex() == one + zero * 2 + zero + one + zero


@pytest.mark.parametrize(("dtype", "shape"), [("F8_E4M3", (2, 4, 1, 1)), ("F32", (4, 2, 1, 1)), ("F32", (2, 4, 3, 3))])
def test_identity_that_can_not_be_written(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(PlanError, match=r"'w'.*identity"):
        identity_beside_zeros(dtype, shape, where="w")
