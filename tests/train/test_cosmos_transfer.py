"""Cosmos Transfer: its ControlNet and its transformer are called as the pipeline calls them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_files import write_captioned, write_video
from tiny_cosmos import TRANSFER, Trusting, cosmos_transfer, with_torchvision
from tiny_runs import bytes_of, settings

from modelgrow.pipelines.load import load_pipeline
from modelgrow.surgery import (
    DataError,
    ExpandOptions,
    TrainError,
    execute,
    open_checkpoint,
    open_source,
    plan_expand,
    prepare,
)
from modelgrow.train.families import cosmos, family_of
from modelgrow.train.families import cosmos_transfer as family
from modelgrow.train.memory import predict_memory
from modelgrow.train.objectives import GivenFrames, RectifiedFlow
from modelgrow.train.run import predict, train
from modelgrow.train.settings import Settings, changed
from modelgrow.train.setup import set_up

# diffusers' UniPC hands tensors to numpy the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPTS = ["a red circle moves right", "a blue square"]
CHUNK, STEPS = 9, 2
DEFAULTS = Settings(model="m", data="d", output="o")
Call = dict[str, Any]


@pytest.fixture(autouse=True)
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    with_torchvision(monkeypatch)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """Whose VAE's posterior is narrow, so that drawing from it, as the pipeline does, gives its mean."""
    with torch.random.fork_rng():
        made = cosmos_transfer()
    last = made.vae.quant_conv
    deviations = slice(made.vae.config.z_dim, None)
    with torch.no_grad():
        last.weight[deviations] = 0
        last.bias[deviations] = -30  # ln of the variance
    return made


def clip(seed: int, frames: int = 2 * CHUNK - 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8)


def pixels(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def run(pipeline: Any, control: np.ndarray, prompts: list[str], **options: Any) -> Any:
    size = {"height": control.shape[1], "width": control.shape[2]}
    arguments = {**size, **family.preview_arguments(pipeline, {"control_video": control}), **options}
    generator = torch.Generator().manual_seed(0)
    return pipeline(
        prompt=prompts, guidance_scale=1.0, num_inference_steps=STEPS, generator=generator, **arguments
    ).frames


@pytest.fixture(scope="module")
def recorded(pipeline: Any) -> list[tuple[Call, torch.Tensor]]:
    """Calls of the transformer, two steps in each of two chunks; the second goes on from the first's last frame."""
    calls: list[tuple[Call, torch.Tensor]] = []
    handle = pipeline.transformer.register_forward_hook(
        lambda _module, _args, kwargs, output: calls.append((kwargs, output[0])), with_kwargs=True
    )
    with pytest.MonkeyPatch.context() as patch:
        with_torchvision(patch)
        run(pipeline, clip(0), PROMPTS, output_type="latent", num_frames_per_chunk=CHUNK)
    handle.remove()
    return calls


def text_of(pipeline: Any, control: np.ndarray, prompts: list[str]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        seen = pixels(control)
        read = family.encode_conditions(pipeline, seen * 0, [None], {"control_video": seen})
        states = family.encode_text(pipeline, prompts)
    return {**states, **{name: value.expand(len(prompts), -1, -1, -1, -1) for name, value in read.items()}}


@pytest.mark.parametrize("chunk", [0, 1])
def test_predict_is_the_pipelines_call(pipeline: Any, recorded: list[tuple[Call, torch.Tensor]], chunk: int) -> None:
    kwargs, expected = recorded[chunk * STEPS + 1]
    noisy, told = kwargs["hidden_states"], kwargs["timestep"].flatten(1) * 1000
    given = kwargs["condition_mask"][:, 0, :, 0, 0]
    assert given.tolist() == [[chunk, 0, 0]] * 2
    assert told[:, 0].tolist() == pytest.approx([100.0] * 2) or not chunk
    timesteps = torch.stack([told, given], dim=1)
    begin = chunk * (CHUNK - 1)
    control = clip(0)[begin : begin + CHUNK]
    text = text_of(pipeline, control, PROMPTS)

    def answer(timesteps: torch.Tensor = timesteps, **other: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return family.predict(pipeline, pipeline.transformer, noisy, timesteps, {**text, **other})

    torch.testing.assert_close(answer(), expected, rtol=1e-4, atol=1e-5)
    others = text_of(pipeline, clip(1, CHUNK), PROMPTS[::-1])
    for name, value in others.items():
        assert (answer(**{name: value}) - expected).abs().amax(dim=(1, 2, 3, 4)).min() > 1e-4, f"{name} must count"
    assert (answer(timesteps * 0.9) - expected).abs().max() > 1e-4, "the timestep must count"
    unmasked = timesteps.clone()
    unmasked[:, 1] = 1 - chunk
    assert (answer(unmasked) - expected).abs().max() > 1e-4, "the mask must count"


def test_a_perfect_answer_makes_the_pipeline_return_the_clip(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = RectifiedFlow()
    with torch.no_grad():
        wanted = family.encode_video(pipeline, pixels(clip(2, CHUNK)))
    start = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    # The pipeline begins with noise alone, at a share of noise a little below 1.
    highest = pipeline.scheduler.config.sigma_max
    noise = (start * (highest + 1) - wanted) / highest
    monkeypatch.setattr(
        pipeline.transformer, "forward", lambda timestep, **_: (flow.target(wanted, noise, timestep.flatten()[:1]),)
    )
    found = run(pipeline, clip(0, CHUNK), PROMPTS[:1], output_type="latent", latents=start)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.02)


def test_previews_are_made_of_the_control_clip_at_once(pipeline: Any) -> None:
    """Of as many frames as the VAE makes, which are no fewer; without that it would be 93."""
    control = clip(0, 10)[:, :16]
    arguments = family.preview_arguments(pipeline, {"control_video": control})
    assert [np.asarray(picture).tolist() for picture in arguments.pop("controls")] == control.tolist()
    assert arguments == {"num_frames_per_chunk": 13}
    found = run(pipeline, control, PROMPTS[:1], output_type="np")
    assert found.shape == (1, 10, 16, 32, 3)


def test_what_is_longer_than_a_chunk_can_be_is_made_in_several(pipeline: Any) -> None:
    """13 is the longest that a VAE of 4 frames in one makes of the model's 16 positions."""
    arguments = family.preview_arguments(pipeline, {"control_video": clip(0, 29)})
    assert arguments["num_frames_per_chunk"] == 13
    assert len(run(pipeline, clip(0, 29), PROMPTS[:1], output_type="np")[0]) == 29


def inputs(pipeline: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Of which the first latent frame is given."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, 4, 3, 4, 4, generator=generator)
    timesteps = torch.tensor([[[100.0, 700.0, 700.0], [1.0, 0.0, 0.0]]])
    return noisy, timesteps, text_of(pipeline, clip(0, CHUNK), PROMPTS[:1])


def test_no_gradient_goes_through_the_controlnet(pipeline: Any) -> None:
    seen: list[torch.Tensor] = []
    handle = pipeline.transformer.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.extend(kwargs["block_controlnet_hidden_states"]), with_kwargs=True
    )
    assert all(parameter.requires_grad for parameter in pipeline.controlnet.parameters())
    family.predict(pipeline, pipeline.transformer, *inputs(pipeline)).square().mean().backward()
    handle.remove()
    assert len(seen) == 2
    assert all(residual.abs().max() > 1e-3 and not residual.requires_grad for residual in seen)
    assert all(parameter.grad is None for parameter in pipeline.controlnet.parameters())
    assert pipeline.transformer.proj_out.weight.grad.abs().max() > 0
    pipeline.transformer.zero_grad()


def test_what_cannot_be_trained_is_what_has_no_gradient(pipeline: Any) -> None:
    """Attention to the tokens of a picture that are all alike does not depend on how it weighs them."""
    model = pipeline.transformer
    family.predict(pipeline, model, *inputs(pipeline)).square().sum().backward()
    sizes = {name: parameter.grad.abs().max().item() for name, parameter in model.named_parameters()}
    model.zero_grad()
    still = {name for name, size in sizes.items() if size < 1e-7}
    assert still == {name for name in sizes if family.idle(name, model.config)}
    assert len(still) == 4 * 4 + 1
    assert min(sizes[name] for name in sizes.keys() - still) > 1e-5


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_memory_is_predicted_with_the_controlnet(pipeline: Any, device: str) -> None:
    """Where accelerate counts the CPU, too: its weights are there already, the model's are made anew."""
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


def test_levels_are_the_trainers_and_given_frames_the_pipelines(pipeline: Any) -> None:
    shares = (0.4, 0.4, 0.2)
    expected = GivenFrames(flow=RectifiedFlow(shift=5.0), shares=shares, level=0.1)
    assert family.objective(pipeline, DEFAULTS) == expected
    chosen = family.objective(pipeline, changed(DEFAULTS, shift=2.0))
    assert chosen == GivenFrames(flow=RectifiedFlow(shift=2.0), shares=shares, level=0.1)


def test_the_pipeline_decides_which_family_it_is() -> None:
    name = "CosmosTransformer3DModel"
    for index in ({"_class_name": f"{grown}Cosmos2_5_TransferPipeline"} for grown in ("", "Grown")):
        assert family_of(name, TRANSFER, index) is family
    assert family_of(name, TRANSFER, {"_class_name": "Cosmos2_5_PredictBasePipeline"}) is cosmos
    assert family_of(name) is cosmos


def test_what_does_not_fit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng():
        pipeline = cosmos_transfer(blocks=3)
    with pytest.raises(TrainError, match=r"has 3 blocks \(n_controlnet_blocks\), and the transformer 2 places"):
        family.objective(pipeline, DEFAULTS)
    pipeline.transformer.register_to_config(controlnet_block_every_n=None)
    with pytest.raises(TrainError, match="has no controlnet_block_every_n"):
        family.objective(pipeline, DEFAULTS)
    pipeline.transformer.register_to_config(controlnet_block_every_n=2, in_channels=4)
    pipeline.controlnet.register_to_config(n_controlnet_blocks=2)
    with pytest.raises(TrainError, match=r"reads a mask of given frames.* this one reads 4 and makes 4"):
        family.objective(pipeline, DEFAULTS)
    monkeypatch.setattr(family, "is_torchvision_available", lambda: False)
    with pytest.raises(TrainError, match="with torchvision, which is missing: install it"):
        family.objective(pipeline, DEFAULTS)


def grow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`folder/base` and, returned, `folder/grown`, with a new block behind every two: the places come out even."""
    with torch.random.fork_rng():
        base = cosmos_transfer()
    monkeypatch.setitem(type(base).__init__.__globals__, "CosmosSafetyChecker", Trusting)
    base.save_pretrained(folder / "base")
    (folder / "base" / "generation.json").write_text('{"num_inference_steps": 2}', encoding="utf-8")
    options = ExpandOptions(mode="insert", blocks=2)
    job = prepare(
        open_source(str(folder / "base")), lambda checkpoint, anatomy: plan_expand(checkpoint, anatomy, options)
    )
    return execute(job, folder / "grown")


def clips(folder: Path, *, controlled: bool = True) -> Path:
    """Two clips with captions and, beside each, a control clip that runs the other way."""
    for number in range(2):
        write_captioned(folder / f"{number}.mp4", f"clip {number}", num_frames=9 + number, width=32)
        if controlled:
            write_video(folder / f"{number}.control_video.mp4", num_frames=10, width=32)
    return folder


def test_a_grown_model_trains_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = grow(tmp_path, monkeypatch)
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
    grown = grow(tmp_path, monkeypatch)
    chosen = settings(grown, tmp_path / "run", data=str(clips(tmp_path / "data", controlled=False)), num_frames=9)
    with pytest.raises(DataError, match="has no control_video, which this model reads"):
        train(chosen)
