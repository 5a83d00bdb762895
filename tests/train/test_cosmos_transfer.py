"""Cosmos Transfer: its ControlNet and its transformer are called as the pipeline calls them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_cosmos import with_torchvision
from tiny_cosmos_transfer import CHUNK, PROMPTS, TRANSFER, clip, cosmos_transfer, inputs, pixels, text_of

from modelgrow.surgery import TrainError
from modelgrow.train.families import cosmos, family_of
from modelgrow.train.families import cosmos_transfer as family
from modelgrow.train.families.family import preview_arguments
from modelgrow.train.objectives import GivenFrames, RectifiedFlow
from modelgrow.train.settings import Settings, changed

# diffusers' UniPC hands tensors to numpy the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = 2
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


def run(pipeline: Any, control: np.ndarray, prompts: list[str], **options: Any) -> Any:
    size = {"height": control.shape[1], "width": control.shape[2]}
    arguments = {**size, **preview_arguments(family, pipeline, {"control_video": control}), **options}
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
    arguments = preview_arguments(family, pipeline, {"control_video": control})
    assert [np.asarray(picture).tolist() for picture in arguments.pop("controls")] == control.tolist()
    assert arguments == {"num_frames_per_chunk": 13}
    found = run(pipeline, control, PROMPTS[:1], output_type="np")
    assert found.shape == (1, 10, 16, 32, 3)


def test_what_is_longer_than_a_chunk_can_be_is_made_in_several(pipeline: Any) -> None:
    """13 is the longest that a VAE of 4 frames in one makes of the model's 16 positions."""
    arguments = preview_arguments(family, pipeline, {"control_video": clip(0, 29)})
    assert arguments["num_frames_per_chunk"] == 13
    assert len(run(pipeline, clip(0, 29), PROMPTS[:1], output_type="np")[0]) == 29


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
