"""Allegro's tiles, captions, loss and noise; its call of the model is held in test_more_families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from diffusers.training_utils import compute_snr
from growths import grow
from tiny_allegro import OPTIONS
from tiny_runs import differing, record_of, settings
from tiny_trained import tiny

from modelgrow.pipelines.generate import GenerateOptions, generate
from modelgrow.pipelines.load import load_pipeline
from modelgrow.surgery import (
    TrainError,
)
from modelgrow.train.families import allegro
from modelgrow.train.objectives.min_snr import MinSnr
from modelgrow.train.objectives.objective import mean_error
from modelgrow.train.run import train
from modelgrow.train.setup import choose_objective

# diffusers' Euler scheduler with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny("allegro")


def published() -> EulerAncestralDiscreteScheduler:
    """The noise schedule of the published training script, in the sampler of the published pipeline."""
    return EulerAncestralDiscreteScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")


def test_captions_are_cleaned_as_the_pipeline_cleans_them(pipeline: Any) -> None:
    prompts = ["A red   <b>circle</b>\\n moves https://a.example/b.mp4", "a blue square #square"]
    seen: list[dict[str, Any]] = []
    handle = pipeline.transformer.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    pipeline(prompts, num_inference_steps=1, output_type="latent", **OPTIONS)
    handle.remove()
    with torch.no_grad():
        text = allegro.encode_text(pipeline, prompts)
        plain, *_ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
    assert torch.equal(text["states"][:, None], seen[0]["encoder_hidden_states"])
    assert torch.equal(text["mask"], seen[0]["encoder_attention_mask"])
    assert not torch.equal(text["states"], plain)


def test_noise_is_what_the_published_sampler_shows_the_model() -> None:
    scheduler = published()
    objective = MinSnr.of(scheduler)
    data, noise = torch.randn(2, 1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(4)  # 999, 666, 333 and 0: between whole ones the sampler interpolates
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        levels = timestep.long()[None]
        sample = data + sigma * noise
        torch.testing.assert_close(
            objective.noisy(data, noise, levels), scheduler.scale_model_input(sample, timestep), rtol=1e-4, atol=1e-4
        )
        stepped = scheduler.step(objective.target(data, noise, levels), timestep, sample)
        torch.testing.assert_close(stepped.pred_original_sample, data, rtol=1e-3, atol=1e-3 * sigma.item())


def test_the_loss_weighs_timesteps_as_the_published_script_does(pipeline: Any) -> None:
    objective = choose_objective(allegro, pipeline, settings(Path("model"), Path("run")))
    assert isinstance(objective, MinSnr)
    assert (objective.prediction, objective.bound) == ("epsilon", 5.0)
    levels = torch.tensor([0, 100, 500, 999])
    ratio = compute_snr(published(), levels)
    assert ratio[0] > 5 > ratio[2]
    expected = torch.stack([ratio, torch.full_like(ratio, 5.0)]).amin(dim=0) / ratio
    torch.testing.assert_close(objective.weights(levels).flatten(), expected)
    zeros, ones = torch.zeros(4, 1, 1, 1, 1), torch.ones(4, 1, 1, 1, 1)
    torch.testing.assert_close(mean_error(objective, zeros, ones, levels), expected.mean())


def test_weights_by_hand() -> None:
    """Ratios of 9 and 1: 5 / 9 and 1 for the noise, 5 / 10 and 1 / 2 for v."""
    table = torch.tensor([0.9, 0.5])
    for prediction, expected in (("epsilon", [5 / 9, 1.0]), ("v_prediction", [0.5, 0.5])):
        objective = MinSnr(alphas_cumprod=table, prediction=prediction)
        torch.testing.assert_close(objective.weights(torch.arange(2)).flatten(), torch.tensor(expected))


def test_what_tiles_do_not_fill_is_refused(pipeline: Any) -> None:
    with pytest.raises(TrainError, match=r"30 frames of 144 x 192.*Set num_frames 24, height 144 and width 176"):
        allegro.encode_video(pipeline, torch.zeros(1, 3, 30, 144, 192))
    with pytest.raises(TrainError, match=r"16 frames of 64 x 128.*Set num_frames 24, height 128 and width 128"):
        allegro.encode_video(pipeline, torch.zeros(1, 3, 16, 64, 128))


def test_what_tiles_do_not_fill_would_be_empty(pipeline: Any) -> None:
    """Why it is refused: what lies there is the same whatever the clip shows."""
    clips = torch.rand(2, 1, 3, 24, 128, 144, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        one, other = (pipeline.vae.encode(clip).latent_dist.mode() for clip in clips)
    assert torch.equal(one[..., 16:], other[..., 16:])
    assert not torch.equal(one[..., :16], other[..., :16])


@pytest.mark.parametrize(
    ("sizes", "fit"),
    [((88, 720, 1280), (88, 720, 1280)), ((81, 480, 832), (72, 320, 800)), ((8, 1000, 300), (24, 720, 320))],
)
def test_sizes_of_the_published_vae(sizes: tuple[int, ...], fit: tuple[int, ...]) -> None:
    """Tiles of 24 x 320 x 320 every 16, 200 and 240; the model's patches make rows a multiple of 16 besides."""
    found = [allegro._filled(*of) for of in zip(sizes, (24, 320, 320), (16, 200, 240), (4, 16, 16), strict=True)]
    assert tuple(found) == fit


def test_only_what_is_new_trains_and_the_result_makes_clips(tmp_path: Path) -> None:
    tiny("allegro").save_pretrained(tmp_path / "base")
    grown = grow(tmp_path / "base", tmp_path / "grown", blocks=1)
    sizes = {name: OPTIONS[name] for name in ("num_frames", "height", "width")}
    result = train(settings(grown, tmp_path / "run", data="shapes:1:2", steps=2, batch_size=2, **sizes))
    assert differing(grown, result.model) == set(record_of(grown).new)
    # diffusers' VAE decodes nothing without tiling, which a pipeline's folder does not say.
    loaded = load_pipeline(result.model, device="cpu")
    clip = generate(loaded, GenerateOptions(prompt="a red circle", num_inference_steps=1, guidance_scale=1.0, **sizes))
    assert clip.frames.shape == (24, 128, 128, 3)
