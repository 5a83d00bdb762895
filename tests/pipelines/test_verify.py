"""verify says the truth: about exact growth, about planted faults, about what can't be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, row_of
from growths import grow
from hub_server import Hub
from models import build, save
from safetensors.torch import load_file, save_file

from modelgrow.pipelines.verify import verify
from modelgrow.surgery import CheckpointError, VerifyError

ROW = row_of("wan")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("verify")
    base = save(folder / "base", ROW.class_name, ROW.tiny)
    return base, grow(base, folder / "grown", blocks=2)


def plant(grown: Path, target: Path, name: str, value: float) -> Path:
    """A copy of `grown` with one element of one tensor moved by `value`."""
    shutil.copytree(grown, target)
    tensors = load_file(target / WEIGHTS)
    tensors[name].view(-1)[0] += value
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    return target


def test_exact_growth(folders: tuple[Path, Path]) -> None:
    base, grown = folders
    report = verify(grown, base)
    assert report.is_identical
    assert report.max_difference == 0.0
    assert "The same function" in report.sentence
    assert report.components[0].output_scale > 0.1


def test_single_file_with_its_config(folders: tuple[Path, Path]) -> None:
    base, grown = folders
    assert verify(grown / WEIGHTS, base / WEIGHTS).is_identical


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("blocks.2.ffn.net.2.weight", 1e-3),
        ("blocks.2.attn1.to_out.0.bias", 1e-4),
        ("blocks.3.attn2.to_q.weight", 1e-2),
        ("proj_out.bias", 1e-5),
    ],
)
def test_planted_fault_is_caught(folders: tuple[Path, Path], tmp_path: Path, name: str, value: float) -> None:
    base, grown = folders
    report = verify(plant(grown, tmp_path / "planted", name, value), base)
    assert not report.is_identical
    assert report.max_difference > 0.0
    assert "NOT the same function" in report.sentence


def test_fault_too_small_for_any_output_is_caught_by_the_record(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, grown = folders
    report = verify(plant(grown, tmp_path / "planted", "blocks.2.ffn.net.2.bias", 1e-30), base)
    assert report.max_difference == 0.0
    assert not report.is_identical
    assert "blocks.2.ffn.net.2.bias should be zero, and is not" in report.sentence


def test_without_a_record_outputs_decide(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, grown = folders
    shutil.copytree(grown, tmp_path / "bare")
    (tmp_path / "bare" / "growth.json").unlink()
    report = verify(tmp_path / "bare", base)
    assert report.is_identical
    assert "no growth.json" in report.sentence


def test_other_weights_are_another_function(folders: tuple[Path, Path], tmp_path: Path) -> None:
    from models import build

    _, grown = folders
    build(ROW.class_name, ROW.tiny, seed=1).save_pretrained(tmp_path / "other")
    assert not verify(grown, tmp_path / "other").is_identical


def test_nothing_in_common(folders: tuple[Path, Path], tmp_path: Path) -> None:
    row = next(row for row in ARCHITECTURES if row.class_name.startswith("CogVideoX"))
    other = save(tmp_path / "cog", row.class_name, row.tiny)
    with pytest.raises(VerifyError, match="nothing to compare: grown holds WanTransformer3DModel"):
        verify(folders[1], other)
    (other / "config.json").rename(tmp_path / "config.json")
    with pytest.raises(VerifyError, match=r"there is no config\.json beside it, so its architecture is unknown"):
        verify(folders[1], other)


def test_wrong_config_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, grown = folders
    shutil.copytree(grown, tmp_path / "wrong")
    config = tmp_path / "wrong" / "config.json"
    config.write_text(config.read_text().replace('"ffn_dim": 32', '"ffn_dim": 48'))
    with pytest.raises(CheckpointError, match="can't be built from it"):
        verify(tmp_path / "wrong", base)


def test_growth_by_copies_is_not_the_same_function(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, _ = folders
    copied = grow(base, tmp_path / "copied", "suffix", blocks=1, init="copy")
    report = verify(copied, base, dtype="bfloat16", draws=1)
    assert not report.is_identical
    assert report.components[0].dtype == "bfloat16"
    assert torch.isfinite(torch.tensor(report.max_difference))


def test_a_class_without_inputs_is_not_called_proven(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The record is checked; nothing was run, and nothing else is claimed."""
    base, grown = (shutil.copytree(folder, tmp_path / folder.name) for folder in folders)
    for folder in (base, grown):
        config = folder / "config.json"
        config.write_text(config.read_text().replace(ROW.class_name, "FooTransformer"))
    report = verify(grown, base)
    assert not report.is_identical
    assert "no inputs are known for FooTransformer" in report.sentence
    assert "every base weight is in place" in report.sentence
    planted = verify(plant(grown, tmp_path / "planted", "blocks.2.ffn.net.2.bias", 1e-30), base)
    assert "should be zero, and is not" in planted.sentence


def test_of_pipelines_on_the_hub_only_what_is_compared_is_downloaded(
    hub: Hub, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    for folder in folders:
        pipeline = tmp_path / folder.name
        shutil.copytree(folder, pipeline / "transformer")
        (pipeline / "vae").mkdir()
        save_file({"w": torch.zeros(9)}, pipeline / "vae" / WEIGHTS)
        (pipeline / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKLWan"}')
        index = {"transformer": ["diffusers", ROW.class_name], "vae": ["diffusers", "AutoencoderKLWan"]}
        (pipeline / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline", **index}))
        hub.publish(f"a/{folder.name}", pipeline)
    hub.publish("a/other", tmp_path / "base" / "vae")
    with pytest.raises(VerifyError, match="nothing to compare"):
        verify("a/grown", "a/other")
    assert all(request.range for request in hub.asked(WEIGHTS))
    report = verify("a/grown", "a/base")
    assert report.is_identical
    assert report.components[0].promises == ()
    whole = {request.name for request in hub.asked(WEIGHTS) if not request.range}
    assert whole == {f"transformer/{WEIGHTS}"}


def test_torchvision_is_asked_for_where_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' Cosmos resizes the padding's mask with it, and would fail with a NameError."""
    from modelgrow.pipelines.probes import cosmos

    row = row_of("cosmos2")
    base = save(tmp_path / "base", row.class_name, {**row.tiny, "concat_padding_mask": True})
    monkeypatch.setattr(cosmos, "is_torchvision_available", lambda: False)
    with pytest.raises(VerifyError, match="pip install torchvision"):
        verify(str(base), str(base))


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_a_base_that_is_a_variant_alone(tmp_path: Path, shard: str) -> None:
    """A grown folder has its weights under the plain name."""
    base = tmp_path / "base"
    build(ROW.class_name, ROW.tiny).save_pretrained(base, variant="fp16", max_shard_size=shard)
    assert not (base / WEIGHTS).exists()
    assert verify(str(grow(base, tmp_path / "grown", blocks=2)), str(base)).is_identical
