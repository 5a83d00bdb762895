"""Families that were added later call their models as their pipelines do, and encode what those decode."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_ltx2
import torch
from diffusers import FluxPipeline, LTX2Pipeline
from tiny_trained import BUILDERS, OPTIONS, tiny

from modelgrow.surgery import TrainError
from modelgrow.train.families import family_of
from modelgrow.train.families.frames import picture_of
from modelgrow.train.inputs import compression
from modelgrow.train.objectives import Diffusion, RectifiedFlow, objective_of

pytestmark = [
    # diffusers' Mochi asks for an autocast to float32, which a CPU has not and need not have.
    pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:CPU Autocast only"),
    # diffusers' DPMSolver hands tensors to numpy the old way.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

PROMPTS = ["a red circle moves right", "a blue square"]


@pytest.fixture(params=list(BUILDERS), scope="module")
def case(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """Name, pipeline and the model that denoises."""
    pipeline = tiny(request.param)
    return request.param, pipeline, getattr(pipeline, "transformer", None) or pipeline.unet


def recorded_call(name: str, pipeline: Any, model: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, timesteps and answer of the model's first call in a run of the pipeline."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
    handle = model.register_forward_hook(
        lambda _module, args, kwargs, output: calls.append((args, kwargs, output)), with_kwargs=True
    )
    generator = torch.Generator().manual_seed(0)
    pipeline(PROMPTS, num_inference_steps=2, generator=generator, output_type="latent", **OPTIONS[name])
    handle.remove()
    if name == "ltx2":
        return tiny_ltx2.isolated(pipeline, calls)
    args, kwargs, output = calls[0]
    noisy = args[0] if args else kwargs["hidden_states"]
    timesteps = args[1] if len(args) > 1 else kwargs["timestep"]
    if name == "flux":
        sizes = OPTIONS[name]["height"], OPTIONS[name]["width"], pipeline.vae_scale_factor
        return unpacked(noisy, *sizes), timesteps * 1000, unpacked(output[0], *sizes)
    clips = noisy if noisy.ndim == 5 else noisy[:, :, None]
    clips = clips[:, :4] if name == "hunyuan-video-1.5" else clips  # the image's channels, zeros here, are behind
    return clips, timesteps.expand(len(noisy)), output[0] if noisy.ndim == 5 else output[0][:, :, None]


def unpacked(tokens: torch.Tensor, height: int, width: int, factor: int) -> torch.Tensor:
    latents: torch.Tensor = FluxPipeline._unpack_latents(tokens, height, width, factor)
    return latents[:, :, None]


def test_predict_is_the_pipelines_call(case: tuple[str, Any, Any]) -> None:
    name, pipeline, model = case
    noisy, timesteps, expected = recorded_call(name, pipeline, model)
    family = family_of(type(model).__name__)
    with torch.no_grad():
        text = family.encode_text(pipeline, PROMPTS)
        found = family.predict(pipeline, model, noisy, timesteps, text)
        other = family.predict(pipeline, model, noisy, timesteps, family.encode_text(pipeline, PROMPTS[::-1]))
    assert noisy.ndim == 5
    assert found.shape == noisy.shape
    torch.testing.assert_close(found, expected[:, : noisy.shape[1]], rtol=1e-4, atol=1e-5)
    assert (other - found).abs().max() > 1e-4, "another prompt must differ"


def test_text_has_one_shape_whatever_it_says(case: tuple[str, Any, Any]) -> None:
    _, pipeline, model = case
    family = family_of(type(model).__name__)
    with torch.no_grad():
        one, empty = (family.encode_text(pipeline, [caption]) for caption in (PROMPTS[0], ""))
        both = family.encode_text(pipeline, [PROMPTS[0], ""])
    for name, states in both.items():
        assert one[name].shape == empty[name].shape == states[:1].shape
        torch.testing.assert_close(torch.cat([one[name], empty[name]]).float(), states.float(), rtol=1e-4, atol=1e-5)


def test_encoded_clips_decode_to_themselves_and_nothing_else(case: tuple[str, Any, Any]) -> None:
    """What the pipeline hands its VAE to decode is what the VAE said of the clip."""
    name, pipeline, model = case
    family, options = family_of(type(model).__name__), OPTIONS[name]
    frames = next((options[key] for key in ("num_frames", "video_length", "frames") if key in options), 1)
    shape = (2, 3, frames, options["height"], options["width"])
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = family.encode_video(pipeline, pixels)
        decoded = handed_over(pipeline, latents, options)
        if decoded.ndim == 4:
            pixels = pixels.transpose(1, 2).flatten(0, 1)
        posterior = pipeline.vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(decoded.flatten(), posterior.flatten(), rtol=1e-4, atol=1e-5)


def handed_over(pipeline: Any, latents: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """Let the pipeline begin with these latents, take no step away from them, and see what it decodes."""
    seen: list[torch.Tensor] = []
    decode, step = pipeline.vae.decode, pipeline.scheduler.step

    def watched(value: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(value)
        return decode(value, *args, **kwargs)

    pipeline.vae.decode = watched
    pipeline.scheduler.step = lambda _output, _time, sample, **_kwargs: (sample,)
    if type(pipeline).__name__ == "AnimateDiffPipeline":  # that of SDXL takes a tuple
        pipeline.scheduler.step = lambda _output, _time, sample, **_kwargs: _Step(sample)
    pipeline.scheduler.init_noise_sigma = 1.0
    if latents.shape[2] == 1:
        latents = latents[:, :, 0]
    if type(pipeline).__name__ == "FluxPipeline":
        latents = FluxPipeline._pack_latents(latents, *latents.shape)
    if type(pipeline).__name__ == "LTX2Pipeline":
        latents = LTX2Pipeline._pack_latents(latents)
    try:
        pipeline(PROMPTS, num_inference_steps=2, latents=latents.clone(), output_type="pt", **options)
    finally:
        pipeline.vae.decode, pipeline.scheduler.step = decode, step
    return torch.cat(seen)


class _Step:
    def __init__(self, sample: torch.Tensor) -> None:
        self.prev_sample = sample


def test_compression_is_the_vaes_with_the_models_patches(case: tuple[str, Any, Any]) -> None:
    """So that every latent frame and every patch is whole: (frames per latent, pixels per patch)."""
    name, pipeline, model = case
    expected = {
        "allegro": (4, 16),
        "animatediff": (1, 2),
        "animatediff-sdxl": (1, 2),
        "easyanimate": (4, 16),
        "flux": (1, 2),  # and twice that, see PACKED
        "hunyuan-video": (4, 16),
        "hunyuan-video-1.5": (4, 4),
        "latte": (1, 4),
        "ltx2": (2, 4),
        "mochi": (6, 16),
        "pixart": (1, 4),
        "sd3": (1, 4),
        "sana-video": (2, 16),
    }
    assert compression(pipeline, model) == expected[name]


def test_objective_follows_the_scheduler(case: tuple[str, Any, Any]) -> None:
    name, pipeline, _ = case
    objective = objective_of(pipeline.scheduler)
    if name in ("allegro", "animatediff", "animatediff-sdxl", "latte", "pixart"):
        assert isinstance(objective, Diffusion)
        assert objective.prediction == "epsilon"
    else:
        assert isinstance(objective, RectifiedFlow)
        assert objective.shift == {
            "easyanimate": 5.0,
            "hunyuan-video": 7.0,
            "hunyuan-video-1.5": 5.0,
            "sana-video": 8.0,
            "sd3": 3.0,
        }.get(name, 1.0)
        assert objective.inverted == (name == "mochi")


def test_models_of_pictures_take_pictures() -> None:
    with pytest.raises(TrainError, match="this model makes pictures; clips of 3 frames came in: set num_frames to 1"):
        picture_of(torch.zeros(1, 4, 3, 2, 2))


def test_mochis_flow_is_what_its_scheduler_integrates() -> None:
    """With the exact answer at every step the scheduler comes out at the data, from noise, whichever way it counts."""
    pipeline = tiny("mochi")
    scheduler, objective = pipeline.scheduler, objective_of(pipeline.scheduler)
    data, noise = torch.randn(2, 1, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(5)
    sample = noise
    for timestep in scheduler.timesteps:
        levels = 1 - timestep / 1000
        assert objective.timesteps(levels) == pytest.approx(timestep.item(), abs=1e-3)
        torch.testing.assert_close(sample, objective.noisy(data, noise, levels[None]), rtol=1e-4, atol=1e-4)
        sample = scheduler.step(objective.target(data, noise, levels), timestep, sample, return_dict=False)[0]
    torch.testing.assert_close(sample, data, rtol=1e-4, atol=1e-4)
