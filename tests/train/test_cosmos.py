"""Cosmos: called as its five pipelines call it, and trained for what they make of its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from growths import grow
from tiny_cosmos import FRAMES, OPTIONS, Trusting, tiny_cosmos, with_torchvision
from tiny_runs import differing, record_of, settings

from modelgrow.surgery import TrainError
from modelgrow.train.families import cosmos
from modelgrow.train.inputs import compression
from modelgrow.train.objectives import Edm, GivenFrames, RectifiedFlow
from modelgrow.train.objectives.cosmos_flow import CosmosFlow
from modelgrow.train.run import train
from modelgrow.train.settings import Settings, changed

# diffusers' UniPC hands tensors to numpy the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPTS = ["a red circle moves right", "a blue square"]
GIVEN = {"video2world": 9, "video2world-2": 5, "predict-2.5": 5}
"""Frames that these pipelines are given, two latent ones."""
DEFAULTS = Settings(model="m", data="d", output="o")


@pytest.fixture(params=list(FRAMES), scope="module")
def case(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, tiny_cosmos(request.param)


def pixels(kind: str) -> torch.Tensor:
    shape = (1, 3, FRAMES[kind], OPTIONS["height"], OPTIONS["width"])
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def run(kind: str, pipeline: Any, prompts: list[str], **options: Any) -> Any:
    if FRAMES[kind] > 1:
        options["num_frames"] = FRAMES[kind]
    if kind in GIVEN:
        options["video"] = (pixels(kind)[:, :, : GIVEN[kind]].transpose(1, 2) + 1) / 2
    generator = torch.Generator().manual_seed(0)
    return pipeline(prompt=prompts, num_inference_steps=3, generator=generator, return_dict=False, **OPTIONS, **options)


def recorded(kind: str, pipeline: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of the model's second call in a run of the pipeline: latents, timesteps as the objective has them, answer."""
    calls: list[Any] = []
    handle = pipeline.transformer.register_forward_hook(
        lambda _module, _args, kwargs, output: calls.append((kwargs, output[0])), with_kwargs=True
    )
    prompts = PROMPTS[:1] if kind == "predict-2.5" else PROMPTS
    run(kind, pipeline, prompts, output_type="latent")
    handle.remove()
    kwargs, answer = calls[1]
    told, noisy = kwargs["timestep"], kwargs["hidden_states"]
    told = told if kind in ("text2world", "video2world") else told * 1000
    if kind not in GIVEN:
        return noisy, told, answer
    given = kwargs["condition_mask"][:, 0, :, 0, 0]
    assert given[0].tolist() == [1, 1, 0]
    frames = told.flatten(1) if told.ndim == 5 else told[:, None].expand_as(given)
    return noisy, torch.stack([frames, given], dim=1), answer


def test_predict_is_the_pipelines_call(case: tuple[str, Any]) -> None:
    kind, pipeline = case
    noisy, timesteps, expected = recorded(kind, pipeline)
    model, prompts = pipeline.transformer, PROMPTS[: len(noisy)]
    with torch.no_grad():
        text, other_text = (cosmos.encode_text(pipeline, some) for some in (prompts, PROMPTS[1:] * len(noisy)))
        found = cosmos.predict(pipeline, model, noisy, timesteps, text)
        other = cosmos.predict(pipeline, model, noisy, timesteps, other_text)
        later = cosmos.predict(pipeline, model, noisy, timesteps * 0.9, text)
        if kind in GIVEN:
            timesteps[:, 1] = 0
            unmasked = cosmos.predict(pipeline, model, noisy, timesteps, text)
            assert (unmasked - found).abs().max() > 1e-3, "without its mask it must differ"
    assert found.shape == noisy.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (other - found)[0].abs().max() > 1e-4, "another prompt must differ"
    assert (later - found).abs().max() > 1e-4, "another timestep must differ"


def test_the_padding_mask_is_the_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    """With or without torchvision, of which one function is needed."""
    with_torchvision(monkeypatch)
    pipeline = tiny_cosmos("text2image", concat_padding_mask=True)
    noisy, timesteps, expected = recorded("text2image", pipeline)
    with torch.no_grad():
        found = cosmos.predict(pipeline, pipeline.transformer, noisy, timesteps, cosmos.encode_text(pipeline, PROMPTS))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_perfect_answer_makes_the_pipeline_return_the_clip(
    case: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From noise, over all its own preconditioning: what the objective asks for is what the pipeline takes it for."""
    kind, pipeline = case
    objective: Any = cosmos.objective(pipeline, DEFAULTS)
    flow = objective.flow if isinstance(objective, GivenFrames) else objective
    with torch.no_grad():
        clip = cosmos.encode_video(pipeline, pixels(kind))
    start = torch.randn(clip.shape, generator=torch.Generator().manual_seed(1))
    # The pipelines begin with noise alone, as if the clip were a part of it: that of sigma_max, or, in 2.5, its share.
    highest = pipeline.scheduler.config.sigma_max
    noise = (start * (highest + 1) - clip) / highest if kind == "predict-2.5" else start - clip / highest

    def answer(hidden_states: torch.Tensor, timestep: torch.Tensor, **_kwargs: Any) -> tuple[torch.Tensor]:
        told = timestep.flatten()[-1:]
        level = (4 * told).exp() if isinstance(flow, Edm) else told
        torch.testing.assert_close(
            hidden_states[:, :, -1:], flow.noisy(clip, noise, level)[:, :, -1:], rtol=1e-3, atol=1e-3
        )
        return (flow.target(clip, noise, level),)

    monkeypatch.setattr(pipeline.transformer, "forward", answer)
    found = run(kind, pipeline, PROMPTS[:1], output_type="latent", latents=start)[0]
    found = found if found.ndim == 5 else found[:, :, None]
    torch.testing.assert_close(found[:, :, -1:], clip[:, :, -1:], rtol=0, atol=0.02)


def test_encoded_clips_decode_to_themselves_and_nothing_else(
    case: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, pipeline = case
    with torch.no_grad():
        latents = cosmos.encode_video(pipeline, pixels(kind))
        expected = pipeline.vae.encode(pixels(kind)).latent_dist.mode()
    seen: list[torch.Tensor] = []
    decode = pipeline.vae.decode

    def watched(value: torch.Tensor, **kwargs: Any) -> Any:
        seen.append(value)
        return decode(value, **kwargs)

    monkeypatch.setattr(pipeline.vae, "decode", watched)
    monkeypatch.setattr(pipeline.scheduler, "step", lambda *_args, **_kwargs: (latents, latents))
    run(kind, pipeline, PROMPTS[:1], output_type="pt")
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-5)


def test_objectives_are_the_published_ones(case: tuple[str, Any]) -> None:
    kind, pipeline = case
    edm = Edm(mean=0.0, deviation=1.0, by_length=True, data=0.5, sign=1, low=0.002, high=80.0)
    expected = {
        "text2world": edm,
        "video2world": GivenFrames(flow=edm, shares=(1 / 3, 1 / 3, 1 / 3), level=None),
        "text2image": RectifiedFlow(),
        "video2world-2": GivenFrames(flow=CosmosFlow(), shares=(0.0, 0.5, 0.5), level=0.0001 / 1.0001),
        "predict-2.5": GivenFrames(flow=RectifiedFlow(shift=5.0), shares=(0.5, 0.25, 0.25), level=0.0001),
    }
    assert cosmos.objective(pipeline, DEFAULTS) == expected[kind]
    chosen: Any = cosmos.objective(pipeline, changed(DEFAULTS, shift=2.0))
    flow = chosen.flow if isinstance(chosen, GivenFrames) else chosen
    assert getattr(flow, "shift", 2.0) == 2.0
    assert kind in ("text2world", "video2world") or not getattr(flow, "by_length", False)


def test_compression_is_the_vaes_with_the_models_patches(case: tuple[str, Any]) -> None:
    kind, pipeline = case
    assert compression(pipeline, pipeline.transformer) == ((8 if kind in ("text2world", "video2world") else 4), 16)


def test_text_has_one_shape_whatever_it_says(case: tuple[str, Any]) -> None:
    _, pipeline = case
    with torch.no_grad():
        one, empty = (cosmos.encode_text(pipeline, [caption])["states"] for caption in (PROMPTS[0], ""))
        both = cosmos.encode_text(pipeline, [PROMPTS[0], ""])["states"]
    torch.testing.assert_close(torch.cat([one, empty]), both, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", list(FRAMES))
def test_a_grown_model_trains_what_is_new(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_cosmos(kind)
    monkeypatch.setitem(type(base).__init__.__globals__, "CosmosSafetyChecker", Trusting)
    base.save_pretrained(tmp_path / "base")
    grown = grow(tmp_path / "base", tmp_path / "grown", blocks=1)
    frames = FRAMES[kind]
    result = train(settings(grown, tmp_path / "run", data="shapes:1:2", steps=2, batch_size=2, num_frames=frames))
    moved = differing(grown, result.model)
    assert moved
    assert moved <= set(record_of(result.model).new)
    assert result.growth is not None
    assert result.predicted_memory > 0


def test_a_lora_is_the_models_where_the_pipeline_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_cosmos("text2image")
    monkeypatch.setitem(type(base).__init__.__globals__, "CosmosSafetyChecker", Trusting)
    base.save_pretrained(tmp_path / "base")
    chosen = settings(tmp_path / "base", tmp_path / "run", data="shapes:1:2", steps=2, num_frames=1, train="lora")
    result = train(chosen)
    model = base.transformer
    inputs = {
        "hidden_states": torch.ones(1, 4, 1, 4, 4),
        "timestep": torch.ones(1),
        "encoder_hidden_states": torch.ones(1, 3, 16),
    }
    with torch.no_grad():
        before = model(**inputs).sample
        model.load_lora_adapter(result.model, use_safetensors=True)
        after = model(**inputs).sample
    assert not torch.equal(before, after)
    moved = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    assert moved
    assert all(parameter.abs().max() > 0 for parameter in moved)


def test_what_cannot_be_trained_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny_cosmos("text2image", concat_padding_mask=True)
    monkeypatch.setattr(cosmos, "is_torchvision_available", lambda: False)
    with pytest.raises(TrainError, match="with torchvision, which is missing: install it"):
        cosmos.objective(pipeline, DEFAULTS)
    with pytest.raises(TrainError, match="clips of 3 frames came in: set num_frames to 1"):
        cosmos.predict(pipeline, pipeline.transformer, torch.zeros(1, 4, 3, 4, 4), torch.zeros(1), {})
    pipeline = tiny_cosmos("text2world")
    with pytest.raises(TrainError, match=r"clips of 25 frames: .* are for 17 at most"), torch.no_grad():
        cosmos.encode_video(pipeline, torch.zeros(1, 3, 25, 32, 32))
    pipeline.scheduler = diffusers.DDIMScheduler()
    with pytest.raises(TrainError, match="Cosmos is trained with EDM or rectified flow, not for DDIMScheduler"):
        cosmos.objective(pipeline, DEFAULTS)
