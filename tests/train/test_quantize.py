"""Frozen weights in fewer bits while it trains: near the base, not the base, and none of it in what is saved."""

from __future__ import annotations

import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from tiny_runs import bytes_of, differing, floats, launch, record_of, settings, tensors

from modelgrow.surgery import Checkpoint, TrainError, open_checkpoint
from modelgrow.train import quantize, setup
from modelgrow.train.cost import measure_step
from modelgrow.train.loop import Loop
from modelgrow.train.run import predict, train
from modelgrow.train.settings import Settings
from modelgrow.train.setup import set_up

torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed (pip install torchao)")
bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (pip install bitsandbytes)"
)
INT8 = {"quantize": "torchao-int8"}


def loop_of(grown: Path, folder: Path, **changes: Any) -> Loop:
    return Loop(run=set_up(settings(grown, folder, **changes), lambda _: None), report=lambda _: None)


@torchao
def test_the_result_is_the_base_and_what_was_trained(grown: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = train(settings(grown, tmp_path / "run", **INT8), announce=said.append)
    record = record_of(result.model)
    assert set(record.zeroed) <= differing(grown, result.model) <= set(record.new)
    assert record.steps[-1].options["quantize"] == "torchao-int8"
    assert (result.model / "transformer" / "config.json").read_text() == (
        grown / "transformer" / "config.json"
    ).read_text()
    assert "quantized, torchao-int8; none is here |" in (result.model / "README.md").read_text()
    assert said[-1].startswith("torchao-int8: 24 of 36 linear layers are quantized")
    plain = train(settings(grown, tmp_path / "plain"))
    assert differing(plain.model, result.model)


@torchao
def test_a_transformer_by_itself_is_quantized_too(grown: Path, tmp_path: Path) -> None:
    inside = train(settings(grown, tmp_path / "inside", steps=3, **INT8))
    shutil.copytree(grown / "transformer", tmp_path / "alone")
    base = str(grown.parent / "base")
    alone = train(settings(tmp_path / "alone", tmp_path / "run", steps=3, pipeline=base, **INT8))
    assert tensors(alone.model) == bytes_of(inside.model)


@torchao
def test_step_0_is_near_the_base_and_not_the_base(grown: Path, tmp_path: Path) -> None:
    exact, again = (loop_of(grown, tmp_path / name) for name in ("exact", "again"))
    loop = loop_of(grown, tmp_path / "run", **INT8)
    batch = exact.batch(0)
    with torch.no_grad():
        answer = exact.predict(batch)
        error = float((loop.predict(batch) - answer).norm() / answer.norm())
        assert torch.equal(again.predict(batch), answer)
        noise = type(batch)(**{**vars(batch), "noise": batch.noise.flip(0)})
        other = float((exact.predict(noise) - answer).norm() / answer.norm())
    assert 1e-4 < error < 0.02 < other
    assert loop.run.quantized is not None
    assert 1e-3 < loop.run.quantized.error < 0.02


@torchao
def test_what_trains_stays_as_it_is(grown: Path, tmp_path: Path) -> None:
    run = set_up(settings(grown, tmp_path / "run", **INT8), lambda _: None)
    plain = set_up(settings(grown, tmp_path / "plain"), lambda _: None)
    assert [name for name, _ in run.trained] == [name for name, _ in plain.trained]
    assert {type(parameter) for _, parameter in run.trained} == {torch.nn.Parameter}
    assert {parameter.dtype for _, parameter in run.trained} == {torch.float32}
    quantized = {name for name, parameter in run.model.named_parameters() if quantize.is_quantized(parameter)}
    expected = {
        f"{name}.weight"
        for name, module in plain.model.named_modules()
        if isinstance(module, torch.nn.Linear) and not module.weight.requires_grad and "time_embedder" not in name
    }
    assert "time_embedder" in plain.model._keep_in_fp32_modules
    assert quantized == expected


@torchao
def test_the_prediction_counts_the_bits_there_are(grown: Path, tmp_path: Path) -> None:
    run, plain = (set_up(settings(grown, tmp_path / str(bits), **bits), lambda _: None) for bits in (INT8, {}))
    few, full = predict(run), predict(plain)
    linear = [p for p in run.model.parameters() if quantize.is_quantized(p)]
    values, rows = sum(p.numel() for p in linear), sum(p.shape[0] for p in linear)
    # A code of one byte in the place of a float; per row a float32 scale and an int8 zero point.
    assert full.weights - few.weights == 3 * values - 5 * rows
    loop = Loop(run=run, report=lambda _: None)
    real = measure_step(run.model, lambda: loop.predict(loop.batch(0)).float().square().mean())
    assert few.activations == pytest.approx(real.saved_bytes, rel=0.02)
    assert (few.gradients, few.optimizer) == (full.gradients, full.optimizer)


@torchao
def test_a_run_goes_on_bit_for_bit(grown: Path, tmp_path: Path) -> None:
    train(settings(grown, tmp_path / "run", steps=2, **INT8))
    longer = train(settings(grown, tmp_path / "run", steps=4, **INT8))
    whole = train(settings(grown, tmp_path / "whole", steps=4, **INT8))
    assert bytes_of(longer.model) == bytes_of(whole.model)
    with pytest.raises(TrainError, match="quantize was 'torchao-int8', is 'none'"):
        train(settings(grown, tmp_path / "run", steps=4))


@torchao
def test_lora_on_quantized_weights(grown: Path, tmp_path: Path) -> None:
    from diffusers import WanPipeline

    result = train(settings(grown, tmp_path / "run", train="lora", lora_rank=2, **INT8))
    pipeline: Any = WanPipeline.from_pretrained(grown, dtype=torch.float32)
    pipeline.load_lora_weights(result.model)
    assert pipeline.get_active_adapters()
    assert result.changed is not None
    assert result.changed.moved > 0


@torchao
@pytest.mark.slow
def test_two_processes(grown: Path, tmp_path: Path) -> None:
    one = train(settings(grown, tmp_path / "one", batch_size=4, **INT8))
    launch(settings(grown, tmp_path / "two", batch_size=2, **INT8), processes=2)
    found, expected = bytes_of(tmp_path / "two" / "model"), bytes_of(one.model)
    record = open_checkpoint(one.model / "transformer").record
    assert record is not None
    for name in record.new:
        torch.testing.assert_close(floats(found[name]), floats(expected[name]), rtol=1e-3, atol=1e-5)
    assert found != bytes_of(grown)


def check_bitsandbytes(grown: Path, folder: Path, kind: str) -> None:
    said: list[str] = []
    result = train(settings(grown, folder / "run", quantize=kind), announce=said.append)
    record = record_of(result.model)
    assert set(record.zeroed) <= differing(grown, result.model) <= set(record.new)
    assert said[-1].startswith(f"{kind}: 24 of 36 linear layers are quantized")
    plain = set_up(settings(grown, folder / "plain"), lambda _: None)
    assert result.predicted_memory < predict(plain).total


@bitsandbytes
@pytest.mark.parametrize("kind", ["bitsandbytes-int8", "bitsandbytes-nf4"])
def test_bitsandbytes_with_its_kernels_for_cpus(
    grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """diffusers asks for a GPU, bitsandbytes does not; all else is as it is with one."""
    from diffusers.quantizers.bitsandbytes import bnb_quantizer

    for quantizer in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        monkeypatch.setattr(quantizer, "validate_environment", lambda *_, **__: None)
        monkeypatch.setattr(quantizer, "update_device_map", lambda _, given: given or {"": "cpu"})
    # Its own layout for some CPUs needs wider layers than these are.
    monkeypatch.setattr(import_module("bitsandbytes.nn.modules"), "has_avx512bf16", lambda: False)
    real = quantize.quantization

    def as_on_a_gpu(chosen: Settings, checkpoint: Checkpoint, place: str, accelerator: Accelerator) -> Any:
        gpu = SimpleNamespace(distributed_type=accelerator.distributed_type, device=torch.device("cuda"))
        return real(chosen, checkpoint, place, cast(Accelerator, gpu))

    monkeypatch.setattr(setup, "quantization", as_on_a_gpu)
    check_bitsandbytes(grown, tmp_path, kind)


@bitsandbytes
@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["bitsandbytes-int8", "bitsandbytes-nf4"])
def test_bitsandbytes_on_a_gpu(grown: Path, tmp_path: Path, kind: str) -> None:
    check_bitsandbytes(grown, tmp_path, kind)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantize": "torchao-int8", "train": "all"}, "nothing is frozen, so nothing can be quantized"),
        ({"quantize": "torchao-int8"}, "needs torchao, which is not installed: pip install torchao"),
        ({"quantize": "bitsandbytes-nf4"}, "needs bitsandbytes, which is not installed: pip install bitsandbytes"),
    ],
)
def test_what_can_not_be_quantized(
    grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda _: None)
    with pytest.raises(TrainError, match=message):
        train(settings(grown, tmp_path / "run", **changes))


def test_places_for_which_there_is_no_quantization(
    grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda _: object())
    checkpoint = open_checkpoint(grown / "transformer")
    accelerator = Accelerator(cpu=True)
    for kind in ("bitsandbytes-nf4", "bitsandbytes-int8"):
        with pytest.raises(TrainError, match="on a GPU only; torchao-int8 runs on a CPU"):
            quantize.quantization(settings(grown, tmp_path, quantize=kind), checkpoint, "transformer", accelerator)
    for kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        monkeypatch.setattr(accelerator.state, "distributed_type", kind)
        with pytest.raises(TrainError, match=f"with {kind.value}: quantized weights are not split"):
            quantize.quantization(settings(grown, tmp_path, **INT8), checkpoint, "transformer", accelerator)
    assert quantize.quantization(settings(grown, tmp_path), checkpoint, "transformer", accelerator) is None


def test_no_such_quantization(grown: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="quantize is 'int3'; choose from none, torchao-int8"):
        settings(grown, tmp_path, quantize="int3")
