"""What saves memory changes the clip by no more than rounding, and predictions are what tensors really take."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers.hooks import apply_group_offloading
from PIL import Image
from tiny_svd import exvideo, save_tiny_exvideo
from torch import nn

from modelgrow.pipelines import memory
from modelgrow.pipelines.activations import TensorPeak, activation_bytes
from modelgrow.pipelines.load import load_pipeline
from modelgrow.pipelines.low_memory import DECODE_CHUNK, offload_for, save_memory
from modelgrow.pipelines.memory import (
    forecast,
    held_bytes,
    peak_bytes,
    reset_peak,
    room,
    watched,
)
from modelgrow.pipelines.one_clip import one_clip_at_a_time
from modelgrow.surgery import GenerateError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"num_frames": 6, "height": 16, "width": 24, "num_inference_steps": 2, "output_type": "np"}


def clip(pipeline: Any, **more: Any) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    frames: np.ndarray = pipeline(
        Image.fromarray(pixels), generator=torch.Generator().manual_seed(0), **SMALL, **more
    ).frames
    return frames


def unet_inputs(pipeline: Any, frames: int = 6) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn(2, frames, 8, 16, 24, generator=generator),
        "timestep": torch.tensor(0.3),
        "encoder_hidden_states": torch.randn(2, 1, 16, generator=generator),
        "added_time_ids": torch.tensor([[29.0, 127.0, 0.02]] * 2),
    }


def test_the_same_clip() -> None:
    plain = clip(exvideo())
    pipeline = exvideo()
    extra = save_memory(pipeline)
    assert extra == {"decode_chunk_size": DECODE_CHUNK}
    blocks = [block for block in pipeline.unet.modules() if hasattr(block, "_chunk_size")]
    assert blocks
    assert all(block._chunk_size == 1 for block in blocks)
    assert np.abs(clip(pipeline) - plain).max() < 1e-4
    assert 1e-4 < np.abs(clip(pipeline, **extra) - plain).max() < 0.5


def test_vae_in_tiles_where_it_can(tiny_pipeline: Path) -> None:
    pipeline: Any = load_pipeline(tiny_pipeline, device="cpu")
    assert save_memory(pipeline) == {}
    assert pipeline.vae.use_tiling
    assert pipeline.vae.use_slicing


def test_offload() -> None:
    assert offload_for(torch.device("cpu")) is None
    assert offload_for(torch.device("cuda")) == "group"


def test_group_offload_needs_a_device(tiny_pipeline: Path) -> None:
    with pytest.raises(GenerateError, match="here that is the CPU"):
        load_pipeline(tiny_pipeline, device="cpu", offload="group")


class Steps(nn.Module):
    """Peak by hand: the input's fourfold and eightfold live together, then the input's single."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        four = values.repeat(4)
        eight = four.repeat(2)
        del four
        return eight[: len(values)] * self.scale


def test_peak_by_hand() -> None:
    values = torch.ones(1000)
    assert activation_bytes(Steps(), (values,), {}) == (4 + 8) * 4000
    with TensorPeak() as counted:
        Steps()(values)
    assert counted.peak >= (4 + 8) * 4000


class Remembers(nn.Module):
    """As Wan's decoder, which writes into the lists that it is called with."""

    def forward(self, values: torch.Tensor, seen: list[Any], count: list[int]) -> torch.Tensor:
        seen[count[0]] = values * 2
        count[0] += 1
        return values


def test_lists_that_a_module_writes_into_are_left_alone() -> None:
    before = torch.ones(3)
    seen, count = [before, None], [1]
    activation_bytes(Remembers(), (torch.ones(4),), {"seen": seen, "count": count})
    assert seen[0] is before
    assert (seen[1], count) == (None, [1])


@pytest.mark.parametrize("saving", [False, True])
def test_predicted_is_what_a_real_pass_takes(*, saving: bool) -> None:
    pipeline = exvideo()
    if saving:
        save_memory(pipeline)
    inputs = unet_inputs(pipeline)
    predicted = forecast(pipeline.unet, (), inputs, CPU).activations
    with torch.no_grad(), TensorPeak() as counted:
        pipeline.unet(**inputs)
    assert predicted == pytest.approx(counted.peak, rel=0.02)
    longer = forecast(pipeline.unet, (), unet_inputs(pipeline, frames=12), CPU).activations
    assert 1.6 * predicted < longer < 2.1 * predicted


def test_clips_of_a_batch_one_after_the_other() -> None:
    """The same output, as a tuple and as an object, by position and by name; half of the memory, as predicted."""
    pipeline = exvideo()
    inputs = unet_inputs(pipeline)
    with torch.no_grad():
        expected = pipeline.unet(**inputs).sample
    whole = forecast(pipeline.unet, (), inputs, CPU).activations
    shapes: list[int] = []
    pipeline.unet.conv_in.register_forward_pre_hook(lambda module, args: shapes.append(len(args[0])))
    one_clip_at_a_time(pipeline.unet)
    one_clip_at_a_time(pipeline.unet)
    assert forecast(pipeline.unet, (), inputs, CPU).activations < 0.6 * whole
    with torch.no_grad():
        for output in (pipeline.unet(*inputs.values()).sample, pipeline.unet(**inputs, return_dict=False)[0]):
            assert torch.allclose(output, expected, atol=1e-5)
        each = inputs | {"timestep": torch.tensor([0.3, 0.3])}
        assert torch.allclose(pipeline.unet(**each).sample, expected, atol=1e-5)
    assert shapes == [6] * 6


@pytest.mark.parametrize(("there", "words"), [(1, "; there are 0.00 GB"), (1 << 50, ")"), (None, ")")])
def test_too_little_room_is_said(monkeypatch: pytest.MonkeyPatch, there: int | None, words: str) -> None:
    said: list[str] = []
    monkeypatch.setattr(memory, "room", lambda device: there)
    pipeline: Any = SimpleNamespace(_execution_device="cpu", transformer=Steps())
    with watched(pipeline, said.append):
        pipeline.transformer(torch.ones(4))
    assert said[0].startswith("predicted peak ")
    assert said[0].endswith(words)


def test_room() -> None:
    found = room(CPU)
    assert found is None or found > held_bytes(CPU)


def test_saving_saves() -> None:
    pipeline = exvideo()
    inputs = unet_inputs(pipeline)
    before = forecast(pipeline.unet, (), inputs, CPU).activations
    pipeline.unet.enable_forward_chunking()
    pieces = forecast(pipeline.unet, (), inputs, CPU).activations
    save_memory(pipeline)
    assert forecast(pipeline.unet, (), inputs, CPU).activations < 0.6 * pieces < 0.55 * before


@pytest.mark.parametrize("offload", ["group", "sequential"])
def test_an_offloaded_module_is_predicted_and_left_as_it_was(offload: str) -> None:
    pipeline = exvideo()
    inputs = unet_inputs(pipeline)
    expected = activation_bytes(pipeline.unet, (), inputs)
    if offload == "group":
        apply_group_offloading(pipeline.unet, onload_device=CPU, offload_device=CPU, offload_type="leaf_level")
    else:
        cpu_offload(pipeline.unet, execution_device=CPU)
    found = forecast(pipeline.unet, (), inputs, CPU)
    assert found.activations == expected
    largest = max(sum(p.nbytes for p in m.parameters(recurse=False)) for m in pipeline.unet.modules())
    assert found.weights == 2 * largest
    with torch.no_grad():
        output = pipeline.unet(**inputs).sample
        plain = exvideo().unet(**inputs).sample
    assert torch.equal(output, plain)


def test_a_pipeline_in_groups_makes_the_same_clip() -> None:
    """The route that --low-memory takes on a GPU, with a CPU as both devices."""
    pipeline = exvideo()
    expected = clip(pipeline, video=[Image.new("RGB", (24, 16), "red")] * 6)
    pipeline.enable_group_offload(CPU, offload_type="leaf_level")
    assert np.array_equal(clip(pipeline, video=[Image.new("RGB", (24, 16), "red")] * 6), expected)


class Looks(nn.Module):
    """Decides by a value, as no module of diffusers that we know of does."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values if values.sum().item() > 0 else -values


def test_what_can_not_be_predicted_is_said() -> None:
    said: list[str] = []
    pipeline: Any = SimpleNamespace(_execution_device="cpu", transformer=Looks())
    with watched(pipeline, said.append):
        assert pipeline.transformer(torch.ones(2)).sum() == 2
    assert said[0] == "the transformer's memory can't be predicted: DataDependentOutputException"
    assert said[1].startswith("actual peak ")
    assert not pipeline.transformer._forward_pre_hooks


def test_told_once_each_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    pipeline = exvideo()
    with watched(pipeline, said.append):
        clip(pipeline, decode_chunk_size=4)
    assert [line.split(" GB")[0].rsplit(" ", 1)[0] for line in said] == ["predicted peak"] * 2 + ["actual peak"]
    assert " in the unet (held " in said[0]
    assert " in the vae (held " in said[1]


def test_resident_memory_and_its_peak() -> None:
    """Touch 64 MB and let go: held goes up and down, the peak stays up until it is reset."""
    size = 64 * 1024**2
    reset_peak(CPU)
    before = held_bytes(CPU)
    with mmap.mmap(-1, size) as block:
        block.write(b"x" * size)
        assert held_bytes(CPU) - before > 0.9 * size
    assert peak_bytes(CPU) - before > 0.9 * size
    reset_peak(CPU)
    if Path("/proc/self/clear_refs").exists():
        assert peak_bytes(CPU) - before < 0.5 * size


@pytest.mark.gpu
def test_low_memory_on_a_gpu(tmp_path: Path) -> None:
    """Layers travel, the clip is the one of the whole model on the device, and the prediction holds."""
    folder, device = save_tiny_exvideo(tmp_path / "model"), torch.device("cuda")
    whole = clip(load_pipeline(folder, device="cuda", dtype="float32"))
    pipeline: Any = load_pipeline(folder, device="cuda", dtype="float32", offload=offload_for(device))
    said: list[str] = []
    save_memory(pipeline)
    with watched(pipeline, said.append):
        assert np.abs(clip(pipeline) - whole).max() < 1e-2
    assert [line.split(" peak")[0] for line in said] == ["predicted", "predicted", "actual"]
    assert all(parameter.device.type == "cpu" for parameter in pipeline.unet.parameters())
