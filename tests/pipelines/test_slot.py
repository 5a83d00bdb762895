"""A slot changes nothing before it is trained: every architecture and dtype, all weights random, through the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import Architecture, row_of
from attached import CLASSES, ROWS, attach, config_of, enliven, equal, inputs_of, load, outputs, without_llm
from models import save

from modelgrow.pipelines.grown import grown_class, is_grown, stock_class
from modelgrow.surgery import PlanError, anatomies

pytestmark = pytest.mark.filterwarnings("ignore:.*should be kept in float32")


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_attached_model_is_the_same_function(row: Architecture, tmp_path: Path) -> None:
    base = save(tmp_path / "base", row.class_name, row.tiny)
    model, original = load(attach(base, tmp_path / "slot")), load(base)
    inputs = inputs_of(model)
    with torch.no_grad():
        expected = outputs(original, without_llm(inputs))
        assert equal(outputs(model, inputs), expected)
        assert equal(outputs(model, without_llm(inputs)), expected), "without states"
        found = outputs(enliven(model), inputs)
        assert all(output.isfinite().all() for output in found)
        assert not equal(found, expected), "a slot that has learned something must move the output"
        assert equal(outputs(model, without_llm(inputs)), expected), "nothing to read: the slot is skipped"
        model.save_pretrained(tmp_path / "again")
        assert equal(outputs(load(tmp_path / "again"), inputs), found)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("row", [pytest.param(row, id=row.class_name) for row in CLASSES])
def test_half_precision_is_exact_too(row: Architecture, dtype: str, tmp_path: Path) -> None:
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    base = save(tmp_path / "base", row.class_name, row.tiny, dtype=kind)
    model, original = load(attach(base, tmp_path / "slot"), kind), load(base, kind)
    inputs = inputs_of(model, dtype=kind)
    with torch.no_grad():
        expected = outputs(original, without_llm(inputs))
        assert equal(outputs(model, inputs), expected)
        assert not equal(outputs(enliven(model), inputs), expected)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.class_name) for row in CLASSES])
def test_samples_read_their_own_text(row: Architecture, tmp_path: Path) -> None:
    """Padding is not read, a sample without text reads the null embedding, and no sample reads another's text."""
    model = enliven(load(attach(save(tmp_path / "base", row.class_name, row.tiny), tmp_path / "slot")))
    inputs = inputs_of(model)
    states, mask = inputs["llm_hidden_states"], inputs["llm_attention_mask"]
    with torch.no_grad():
        expected = outputs(model, inputs)
        padded = states.masked_fill(~mask[..., None], float("nan"))
        assert equal(outputs(model, {**inputs, "llm_hidden_states": padded}), expected)
        none = torch.stack([mask[0], torch.zeros_like(mask[1])])
        other = torch.stack([states[0], states[1] + 1.0])
        null = outputs(model, {**inputs, "llm_attention_mask": none})
        assert equal(outputs(model, {**inputs, "llm_attention_mask": none, "llm_hidden_states": other}), null)
        assert not equal(null, expected)
        for one, another in zip(expected, outputs(model, {**inputs, "llm_hidden_states": other}), strict=True):
            if one.shape[0] == 2:
                torch.testing.assert_close(one[0], another[0])
                assert not torch.equal(one[1], another[1])


def test_motion_adapter_has_no_place_for_a_slot(tmp_path: Path) -> None:
    row = row_of("motion-adapter")
    with pytest.raises(PlanError, match=r"no slot can stand in it.*the UNet that it is plugged into"):
        attach(save(tmp_path / "base", row.class_name, row.tiny), tmp_path / "slot")


def test_every_class_is_covered() -> None:
    able = {name for name, anatomy in anatomies().items() if any(stack.slot for stack in anatomy.stacks)}
    assert {row.class_name for row in ROWS} == able
    assert "MotionAdapter" not in able


def test_classes_are_found_by_their_names(tmp_path: Path) -> None:
    import diffusers

    import modelgrow.pipelines

    row = CLASSES[0]
    stock = getattr(diffusers, row.class_name)
    grown = getattr(modelgrow.pipelines, f"Grown{row.class_name}")
    assert grown is grown_class(stock) is getattr(diffusers, f"Grown{row.class_name}")
    assert is_grown(grown)
    assert not is_grown(stock)
    assert stock_class(grown) is stock is stock_class(stock)
    for name in ("GrownNothing", f"GrownGrown{row.class_name}", "GrownDDIMScheduler"):
        with pytest.raises(AttributeError, match=name):
            getattr(modelgrow.pipelines, name)
    folder = attach(save(tmp_path / "base", row.class_name, row.tiny), tmp_path / "slot")
    assert config_of(folder)["_class_name"] == grown.__name__
    loaded = diffusers.AutoModel.from_pretrained(str(folder))
    assert type(loaded) is grown
