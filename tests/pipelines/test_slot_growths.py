"""Slots and other growths in any order: the same function, and back again byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from architectures import Architecture, row_of
from attached import LLM, attach, config_of, enliven, equal, inputs_of, load, outputs, without_llm
from growths import grow, pack, snapshot, unpack
from longer import extend
from models import build, save
from tiny_pipelines import VAE, text_encoder, tokenizer

from modelgrow.pipelines import load_growth
from modelgrow.pipelines.verify import verify
from modelgrow.surgery import PlanError, execute, inspect, open_checkpoint, open_source
from modelgrow.surgery.attach_job import prepare_attach_llm
from modelgrow.surgery.attach_llm import AttachOptions
from modelgrow.surgery.shrink import prepare_shrink

pytestmark = pytest.mark.filterwarnings("ignore:.*should be kept in float32")


def shrink(folder: Path, output: Path, *components: str) -> Path:
    return execute(prepare_shrink(open_source(str(folder)), components=components), output)


def train(folder: Path, output: Path) -> Path:
    """A slot that has learned something, where it was."""
    model = enliven(load(folder))
    model.save_pretrained(output)
    (output / "growth.json").write_bytes((folder / "growth.json").read_bytes())
    return output


CASES: list[tuple[str, dict[str, Any], tuple[int, ...] | None]] = [
    ("wan", {"mode": "insert"}, None),
    ("wan", {"mode": "prefix", "blocks": 2}, (1, 3)),
    ("mochi", {"mode": "suffix", "blocks": 1}, None),
    ("sd3", {"mode": "suffix", "blocks": 1}, None),
    ("latte", {"mode": "insert"}, (0,)),
    ("flux", {"mode": "prefix", "blocks": 1}, None),
    ("svd", {"mode": "insert"}, None),
    ("unet-motion-deeper", {"mode": "insert", "stack": "attentions"}, None),
]


@pytest.mark.parametrize(
    ("name", "growth", "at"), [pytest.param(*case, id=f"{case[0]}-{case[1]['mode']}") for case in CASES]
)
def test_depth_and_slot_compose(name: str, growth: dict[str, Any], at: tuple[int, ...] | None, tmp_path: Path) -> None:
    """Whatever a slot has learned, a copy of its block adds nothing; and a deeper model takes a slot as any other."""
    row = row_of(name)
    base = save(tmp_path / "base", row.class_name, row.tiny)
    slot = attach(base, tmp_path / "slot", at=at)
    trained = train(slot, tmp_path / "trained")
    deeper = grow(trained, tmp_path / "deeper", **growth)
    first, second = load(trained), load(deeper)
    inputs = inputs_of(first)
    with torch.no_grad():
        expected = outputs(first, inputs)
        assert equal(outputs(second, inputs), expected)
        assert not equal(outputs(load(base), without_llm(inputs)), expected)
    before, after = config_of(slot)["llm_slot"]["blocks"], config_of(deeper)["llm_slot"]["blocks"]
    assert sum(map(len, after.values())) > sum(map(len, before.values())) or at is not None
    assert snapshot(shrink(deeper, tmp_path / "back"))["config.json"] == snapshot(trained)["config.json"]
    other = attach(grow(base, tmp_path / "deep", **growth), tmp_path / "deep-slot")
    report = verify(other, base, draws=1)
    assert report.is_identical, report.sentence
    assert snapshot(shrink(shrink(other, tmp_path / "back-1"), tmp_path / "back-2")) == snapshot(base)


def test_slots_are_renumbered(tmp_path: Path) -> None:
    row = row_of("wan")
    base = save(tmp_path / "base", row.class_name, row.tiny)
    slot = attach(base, tmp_path / "slot", at=(1, 3))
    assert config_of(slot)["llm_slot"]["blocks"] == {"blocks": [1, 3]}
    deeper = grow(slot, tmp_path / "deeper", mode="insert", blocks=2)  # 0 1 1' 2 3 3'
    assert config_of(deeper)["llm_slot"]["blocks"] == {"blocks": [1, 2, 4, 5]}
    prefix = grow(slot, tmp_path / "prefix", mode="prefix", blocks=1)  # 0' 0 1 2 3
    assert config_of(prefix)["llm_slot"]["blocks"] == {"blocks": [2, 4]}


def test_verify_sees_a_slot_that_is_not_silent(tmp_path: Path) -> None:
    row = row_of("wan")
    base = save(tmp_path / "base", row.class_name, row.tiny)
    slot = attach(base, tmp_path / "slot")
    report = verify(slot, base, draws=1)
    assert report.is_identical
    assert report.components[0].class_name == "GrownWanTransformer3DModel"
    trained = verify(train(slot, tmp_path / "trained"), base, draws=1)
    assert not trained.is_identical
    assert trained.max_difference > 0


def test_growth_of_a_slot_loads_onto_its_base(tmp_path: Path) -> None:
    row = row_of("wan")
    base = save(tmp_path / "base", row.class_name, row.tiny)
    trained = train(
        grow(attach(base, tmp_path / "slot"), tmp_path / "deeper", mode="suffix", blocks=1), tmp_path / "new"
    )
    pack(trained, tmp_path / "growth.safetensors", base=open_source(str(base)))
    assert snapshot(unpack(tmp_path / "growth.safetensors", base, tmp_path / "again")) == snapshot(trained)
    grown = load_growth(load(base), tmp_path / "growth.safetensors")
    assert type(grown).__name__ == "GrownWanTransformer3DModel"
    model = load(trained)
    inputs = inputs_of(model)
    with torch.no_grad():
        assert equal(outputs(grown, inputs), outputs(model, inputs))


def pipeline(folder: Path, rows: dict[str, Architecture]) -> Path:
    """A pipeline of random weights; only its denoisers matter here."""
    models: dict[str, Any] = {
        name: build(row.class_name, row.tiny, seed=seed) for seed, (name, row) in enumerate(rows.items())
    }
    stock: Any = diffusers.WanPipeline
    stock(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=build("AutoencoderKLWan", VAE),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        boundary_ratio=0.9,
        **models,
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("order", [("transformer", "transformer_2"), ("transformer_2", "transformer")])
def test_pipeline_goes_and_comes_back_with_its_last_slot(order: tuple[str, str], tmp_path: Path) -> None:
    row = row_of("wan")
    base = pipeline(tmp_path / "base", {"transformer": row, "transformer_2": row})
    source = open_source(str(base))
    grown = execute(prepare_attach_llm(source, AttachOptions(llm=LLM)), tmp_path / "grown")
    index = open_source(str(grown)).pipeline
    assert index is not None
    assert index["_class_name"] == "GrownWanPipeline"
    assert index["transformer_2"] == ["modelgrow.pipelines", "GrownWanTransformer3DModel"]
    assert index["llm"] == index["llm_tokenizer"] == [None, None]
    loaded = diffusers.DiffusionPipeline.from_pretrained(grown)
    assert type(loaded).__name__ == "GrownWanPipeline"
    assert isinstance(loaded, diffusers.WanPipeline)
    one = shrink(grown, tmp_path / "one", order[0])
    half = open_source(str(one)).pipeline
    assert half is not None
    assert half["_class_name"] == "GrownWanPipeline", "the other one still has a slot"
    assert half[order[0]] == ["diffusers", "WanTransformer3DModel"]
    assert snapshot(shrink(one, tmp_path / "none", order[1])) == snapshot(base)
    alone = execute(
        prepare_attach_llm(open_source(str(one)), AttachOptions(llm=LLM), components=[order[0]]), tmp_path / "both"
    )
    assert snapshot(alone)["model_index.json"] == snapshot(grown)["model_index.json"]
    with pytest.raises(PlanError, match="reads its prompt once, so both must be the same"):
        prepare_attach_llm(open_source(str(one)), AttachOptions(llm=LLM, max_length=7), components=[order[0]])


def test_packed_slot_makes_the_pipeline_again(tmp_path: Path) -> None:
    row = row_of("wan")
    base = pipeline(tmp_path / "base", {"transformer": row, "transformer_2": row})
    grown = execute(prepare_attach_llm(open_source(str(base)), AttachOptions(llm=LLM)), tmp_path / "grown")
    pack(grown, tmp_path / "growth.safetensors")
    assert snapshot(unpack(tmp_path / "growth.safetensors", base, tmp_path / "again")) == snapshot(grown)
    loaded = load_growth(diffusers.WanPipeline.from_pretrained(base), tmp_path / "growth.safetensors")
    assert type(loaded).__name__ == "GrownWanPipeline"
    assert type(loaded.transformer_2).__name__ == "GrownWanTransformer3DModel"


def test_inspect_shows_the_slot(tmp_path: Path) -> None:
    row = row_of("wan")
    slot = attach(save(tmp_path / "base", row.class_name, row.tiny), tmp_path / "slot", at=(0, 1, 3))
    report = inspect(open_source(str(slot))).components[0]
    assert report.slot == "behind 3 blocks (blocks 0-1, 3), 2 heads of 12; reads somebody/llm (20 wide)"
    assert report.growable
    record = open_checkpoint(slot).record
    assert record is not None
    assert record.base.class_name == "WanTransformer3DModel"
    with pytest.raises(PlanError, match="has a slot for a language model already"):
        attach(slot, tmp_path / "twice")


@pytest.mark.parametrize("first", ["slot", "frames"])
def test_longer_clips_and_slot_compose(first: str, tmp_path: Path) -> None:
    """Both stand in one class, in whichever order they came, and go one by one."""
    row = row_of("wan")
    base = save(tmp_path / "base", row.class_name, row.tiny)
    steps: dict[str, Callable[[Path, Path], Path]] = {
        "slot": attach,
        "frames": lambda folder, output: extend(folder, output, 161),
    }
    one = steps.pop(first)(base, tmp_path / "one")
    both = next(iter(steps.values()))(one, tmp_path / "both")
    config = config_of(both)
    assert config["_class_name"] == "GrownWanTransformer3DModel"
    assert config["llm_slot"]
    assert config["frame_extension"]
    model = load(both)
    inputs = inputs_of(model)
    with torch.no_grad():
        found = outputs(model, inputs)
        assert equal(found, outputs(load(extend(base, tmp_path / "alone", 161)), without_llm(inputs)))
        assert not equal(outputs(enliven(model), inputs), found)
    assert snapshot(shrink(both, tmp_path / "back")) == snapshot(one)
    assert snapshot(shrink(tmp_path / "back", tmp_path / "none")) == snapshot(base)
