"""Runs of Cosmos Transfer on clips with control clips, and what they take."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from clip_files import write_captioned, write_video
from growths import grow
from tiny_cosmos import Trusting, with_torchvision
from tiny_cosmos_transfer import cosmos_transfer, inputs
from tiny_runs import bytes_of, settings

from modelgrow.pipelines.load import load_pipeline
from modelgrow.surgery import DataError, open_checkpoint
from modelgrow.train.families import cosmos_transfer as family
from modelgrow.train.memory import predict_memory
from modelgrow.train.run import predict, train
from modelgrow.train.setup import set_up

# diffusers' UniPC hands tensors to numpy the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    with_torchvision(monkeypatch)


def save_grown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`folder/base` and, returned, `folder/grown`, with a new block behind every two: the places come out even."""
    with torch.random.fork_rng():
        base = cosmos_transfer()
    monkeypatch.setitem(type(base).__init__.__globals__, "CosmosSafetyChecker", Trusting)
    base.save_pretrained(folder / "base")
    (folder / "base" / "generation.json").write_text('{"num_inference_steps": 2}', encoding="utf-8")
    return grow(folder / "base", folder / "grown", blocks=2)


def clips(folder: Path, *, controlled: bool = True) -> Path:
    """Two clips with captions and, beside each, a control clip that runs the other way."""
    for number in range(2):
        write_captioned(folder / f"{number}.mp4", f"clip {number}", num_frames=9 + number, width=32)
        if controlled:
            write_video(folder / f"{number}.control_video.mp4", num_frames=10, width=32)
    return folder


def test_a_grown_model_trains_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = save_grown(tmp_path, monkeypatch)
    base, same = (load_pipeline(folder, device="cpu") for folder in (tmp_path / "base", grown))
    assert same.transformer.config.controlnet_block_every_n == 3
    with torch.no_grad():
        answers = [family.predict(one, one.transformer, *inputs(one)) for one in (base, same)]
    assert torch.equal(*answers), "step 0 is the base to the bit"
    chosen = settings(
        grown,
        tmp_path / "run",
        data=str(clips(tmp_path / "data")),
        steps=2,
        num_frames=9,
        preview_every=2,
        previews=["a red circle"],
    )
    result = train(chosen)
    record = open_checkpoint(result.model / "transformer").record
    assert record is not None
    before, after = bytes_of(grown), bytes_of(result.model)
    assert {name for name in before if before[name] != after[name]} == {
        name for name in record.new if not family.idle(name, {})
    }
    assert result.growth is not None
    assert (tmp_path / "run/previews/step-00000002-0.mp4").is_file()
    weights = "controlnet/diffusion_pytorch_model.safetensors"
    assert (result.model / weights).read_bytes() == (tmp_path / "base" / weights).read_bytes()
    again = set_up(chosen, lambda _: None)
    stepping = (again.model, again.pipeline.controlnet)
    assert predict(again).weights == sum(tensor.nbytes for part in stepping for tensor in part.parameters())
    trained = load_pipeline(result.model, device="cpu")
    with torch.no_grad():
        assert not torch.equal(family.predict(trained, trained.transformer, *inputs(trained)), answers[0])


def test_clips_without_control_clips_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = save_grown(tmp_path, monkeypatch)
    chosen = settings(grown, tmp_path / "run", data=str(clips(tmp_path / "data", controlled=False)), num_frames=9)
    with pytest.raises(DataError, match="has no control_video, which this model reads"):
        train(chosen)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_memory_is_predicted_with_the_controlnet(device: str) -> None:
    """Where accelerate counts the CPU, too: its weights are there already, the model's are made anew."""
    with torch.random.fork_rng():
        pipeline = cosmos_transfer()
    noisy, timesteps, text = inputs(pipeline)
    model = pipeline.transformer
    asked: list[Any] = []

    def ask(stand_in: Any, given: Any) -> torch.Tensor:
        asked.append(given["noisy"])
        return family.predict(pipeline, stand_in, **given)

    found = predict_memory(
        model,
        ask,
        {"noisy": noisy, "timesteps": timesteps, "text": text},
        optimizer="adamw",
        average=False,
        autocast=nullcontext,
        device=torch.device(device),
    )
    assert len(asked) == 1
    assert found.activations is not None
    assert found.step is not None
    assert found.step > found.gradients == sum(parameter.nbytes for parameter in model.parameters())
