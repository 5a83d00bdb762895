"""Longer clips beside other growths, there and back, and the foundation's from a command to frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import row_of
from conftest import Grow
from diffusers import DiffusionPipeline
from growths import grow, pack, unpack
from longer import extend, inputs_of, save

from modelgrow.pipelines import load_growth
from modelgrow.pipelines.foundation import foundation_path
from modelgrow.pipelines.generate import GenerateOptions, generate
from modelgrow.pipelines.load import load_pipeline
from modelgrow.pipelines.models import load_model
from modelgrow.pipelines.probes import run_model
from modelgrow.pipelines.verify import verify
from modelgrow.surgery import PlanError, execute, kept, open_checkpoint, open_source
from modelgrow.surgery.readback import read_chunks
from modelgrow.surgery.shrink import prepare_shrink

TO = {"wan": 161, "latte": 20, "cogvideox-5b-i2v": 33, "unet-motion": 20}
"""Rows and the frames that they are extended to."""


def held(folder: Path) -> dict[str, Any]:
    tensors = open_checkpoint(folder).tensors
    found: dict[str, Any] = {name: (t.dtype, t.shape, b"".join(read_chunks(t))) for name, t in tensors.items()}
    found["config.json"] = json.loads((folder / "config.json").read_text())
    return found


def lengthen(folder: Path, output: Path, name: str, *, trainable: bool) -> Path:
    return extend(folder, output, TO[name], trainable=trainable, base_frames=25 if name == "wan" else None)


@pytest.mark.parametrize(
    ("name", "trainable"),
    [*((name, True) for name in TO), ("wan", False), ("latte", False)],
    ids=lambda value: value if isinstance(value, str) else "trainable" if value else "fixed",
)
def test_growths_compose(name: str, trainable: bool, tmp_path: Path) -> None:
    base = save(tmp_path / "base", row_of(name))
    longer = lengthen(base, tmp_path / "longer", name, trainable=trainable)
    deeper = grow(base, tmp_path / "deeper", mode="suffix")
    both = grow(longer, tmp_path / "longer-deeper", mode="suffix")
    other = lengthen(deeper, tmp_path / "deeper-longer", name, trainable=trainable)
    for grown in (longer, both, other):
        assert verify(grown, base, draws=1).is_identical
    assert held(both).keys() == held(other).keys()
    for grown, before in ((longer, base), (both, longer), (other, deeper)):
        assert held(execute(prepare_shrink(open_source(str(grown))), tmp_path / "back", overwrite=True)) == held(before)
    packed = tmp_path / "growth.safetensors"
    pack(longer, packed)
    assert held(unpack(packed, base, tmp_path / "unpacked")) == held(longer)


def test_a_packed_extension_onto_a_model_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save(tmp_path / "base", row_of("wan"))
    longer = lengthen(base, tmp_path / "longer", "wan", trainable=True)
    pack(longer, tmp_path / "growth.safetensors")
    grown = load_growth(load_model(open_checkpoint(base), dtype=torch.float32), tmp_path / "growth.safetensors")
    expected = load_model(open_checkpoint(longer), dtype=torch.float32)
    inputs = inputs_of("WanTransformer3DModel", expected.config, 20, monkeypatch)
    assert all(map(torch.equal, run_model(expected, inputs), run_model(grown, inputs)))


def test_what_is_stored_is_verified_as_changed_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mochi's frequencies are weights: the record keeps what they were, if that is not too much."""
    base = save(tmp_path / "base", row_of("mochi"))
    longer = extend(base, tmp_path / "longer", 331)
    assert verify(longer, base, draws=1).max_difference > 0
    deeper = grow(longer, tmp_path / "deeper", mode="insert")
    for grown, before in ((deeper, longer), (longer, base)):
        assert held(execute(prepare_shrink(open_source(str(grown))), tmp_path / "back", overwrite=True)) == held(before)
    pack(deeper, tmp_path / "growth.safetensors")
    assert held(unpack(tmp_path / "growth.safetensors", base, tmp_path / "unpacked")) == held(deeper)
    monkeypatch.setattr(kept, "MAX_KEPT", 10)
    with pytest.raises(PlanError, match="kept no way to make the old one again"):
        prepare_shrink(open_source(str(extend(base, tmp_path / "large", 331))))


def test_a_growth_before_it_is_not_taken_back_with_it(tmp_path: Path) -> None:
    """A step without new tensors is no training of the step before."""
    deeper = grow(save(tmp_path / "base", row_of("wan")), tmp_path / "deeper", mode="suffix")
    longer = lengthen(deeper, tmp_path / "longer", "wan", trainable=False)
    record = open_checkpoint(longer).record
    assert record is not None
    assert record.steps[-1].new == ()
    assert prepare_shrink(open_source(str(longer))).plans[""].options == {"steps": 1}


def test_the_command(grow: Grow, tmp_path: Path) -> None:
    base = save(tmp_path / "base", row_of("wan"))
    words = ("extend-frames", str(base), "--to", "128", "--base-frames", "17")
    code, out, _ = grow(*words, "--dry-run")
    assert code == 0
    assert "Nothing was written" in out
    assert "num_frames=129 and keep frames[:128]" in out.replace("\n", " ")
    code, out, _ = grow(*words, "-o", "longer", "--json", "--method", "ntk", "--trainable")
    assert code == 0
    told = json.loads(out)["plans"][""]
    assert told["config_edits"]["frame_extension"]["method"] == "ntk"
    assert told["new_parameters"] == 2
    code, out, _ = grow("inspect", "longer")
    assert code == 0
    assert "extend-frames to=128" in out
    code, _, err = grow(*words, "--method", "sideways")
    assert code == 2
    code, _, err = grow("extend-frames", str(base), "--to", "9", "--method", "yarn")
    assert code == 1
    assert "no more than it was trained on" in err
    code, out, _ = grow("extend-frames", "--help")
    assert "RIFLEx where positions are RoPE" in " ".join(out.split())


@pytest.fixture(scope="module")
def longer_foundation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extend(foundation_path(), tmp_path_factory.mktemp("longer") / "foundation", 32)


def clip(model: Path | None, **options: Any) -> np.ndarray:
    pipeline = load_pipeline(model, device="cpu")
    asked = GenerateOptions(prompt="a red circle moves right", seed=1, num_inference_steps=2, **options)
    return generate(pipeline, asked).frames


def test_the_foundation_makes_longer_clips(longer_foundation: Path) -> None:
    """32 frames where the VAE decodes 31 or 33, and its own 17 as before, to the bit."""
    longer = clip(longer_foundation)
    assert longer.shape == (32, 64, 64, 3)
    assert np.array_equal(clip(longer_foundation, num_frames=17), clip(None))
    assert not np.array_equal(longer, clip(None, num_frames=32))


def test_a_plain_diffusers_script_makes_them_too(longer_foundation: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(longer_foundation)
    assert type(pipeline.transformer).__name__ == "GrownWanTransformer3DModel"
    asked = pipeline.transformer.config.frame_extension
    assert (asked["num_frames"], asked["clip_frames"]) == (33, 32)
    assert (asked["base_frames"], asked["frames"]) == (9, 17)  # its VAE halves time, Wan's own quarters it
    pipeline.set_progress_bar_config(disable=True)
    frames = pipeline(
        "a red circle", height=64, width=64, num_inference_steps=1, num_frames=asked["num_frames"], output_type="np"
    ).frames[0]
    assert len(frames) == 33


@pytest.mark.slow
def test_the_foundation_makes_128_frames(tmp_path: Path) -> None:
    longer = extend(foundation_path(), tmp_path / "longer", 128)
    assert clip(longer).shape == (128, 64, 64, 3)
