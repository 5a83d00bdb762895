"""Kandinsky 5 is called as its pipelines call it, text or image to video, one clip at a time."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import Kandinsky5T2VPipeline
from diffusers.models.attention_dispatch import attention_backend
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from tiny_kandinsky5 import OPTIONS, components, kandinsky5, kandinsky5_i2v
from tiny_runs import settings

from modelgrow.surgery import TrainError
from modelgrow.train.families import kandinsky5 as family
from modelgrow.train.inputs import compression
from modelgrow.train.objectives import RectifiedFlow
from modelgrow.train.objectives.first_frame_flow import FirstFrameFlow

PROMPTS = ["a red circle moves right", "a blue square"]
NEAR: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def t2v() -> Any:
    return quiet(kandinsky5())


@pytest.fixture(scope="module")
def i2v() -> Any:
    return quiet(kandinsky5_i2v())


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def clips(samples: int = 1, frames: int = 9) -> torch.Tensor:
    """(B, 3, T, 32, 32) in [-1, 1]."""
    return torch.rand((samples, 3, frames, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1


def recorded_call(pipeline: Any, **given: Any) -> tuple[dict[str, Any], torch.Tensor]:
    """What the model is given in a run of the pipeline, the first time, and what it answers, (B, C, F, h, w)."""
    calls: list[tuple[dict[str, Any], torch.Tensor]] = []
    # The pipeline goes on in the tensor that it gave.
    handle = pipeline.transformer.register_forward_hook(
        lambda _module, _args, kwargs, output: calls.append((copy.deepcopy(kwargs), output.sample)), with_kwargs=True
    )
    generator = torch.Generator().manual_seed(0)
    pipeline(num_inference_steps=2, generator=generator, output_type="latent", **{**OPTIONS, **given})
    handle.remove()
    kwargs, output = calls[0]
    return kwargs, output.permute(0, 4, 1, 2, 3)


def latents_in(kwargs: dict[str, Any]) -> torch.Tensor:
    """(B, 4, F, h, w)."""
    seen: torch.Tensor = kwargs["hidden_states"]
    return seen[..., :4].permute(0, 4, 1, 2, 3)


def test_each_clip_reads_its_own_caption_and_no_padding(t2v: Any) -> None:
    """A batch of captions of several lengths is what the pipeline does with each by itself."""
    calls = [recorded_call(t2v, prompt=prompt) for prompt in PROMPTS]
    lengths = [kwargs["encoder_hidden_states"].shape[1] for kwargs, _ in calls]
    assert lengths[0] != lengths[1]
    noisy = torch.cat([latents_in(kwargs) for kwargs, _ in calls])
    timesteps = torch.cat([kwargs["timestep"] for kwargs, _ in calls])
    with torch.no_grad():
        text = family.encode_text(t2v, PROMPTS)
        found = family.predict(t2v, t2v.transformer, noisy, timesteps, text)
        other = family.predict(t2v, t2v.transformer, noisy, timesteps, family.encode_text(t2v, PROMPTS[::-1]))
    assert text["mask"].sum(dim=1).tolist() == lengths
    assert not text["states"][~text["mask"]].any()
    torch.testing.assert_close(found, torch.cat([output for _, output in calls]), **NEAR)
    assert ((other - found).flatten(1).abs().amax(dim=1) > 1e-3).all(), "another prompt must differ"


def test_models_without_conditions() -> None:
    pipeline = quiet(Kandinsky5T2VPipeline(**components(visual_cond=False)))
    kwargs, expected = recorded_call(pipeline, prompt=PROMPTS[0])
    assert kwargs["hidden_states"].shape[-1] == 4
    with torch.no_grad():
        text = family.encode_text(pipeline, PROMPTS[:1])
        found = family.predict(pipeline, pipeline.transformer, latents_in(kwargs), kwargs["timestep"], text)
    torch.testing.assert_close(found, expected, **NEAR)


# The pipeline levels the finished clip's first frames by those behind them, of which so short a clip has none.
@pytest.mark.filterwarnings(r"ignore:std\(\)")
def test_the_first_frame_is_given_as_the_pipeline_gives_it(i2v: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline draws its latents from the posterior; what is trained on is the posterior's mean, here and there."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    pixels = clips()
    kwargs, expected = recorded_call(i2v, prompt=PROMPTS[0], image=(pixels[:, :, 0] + 1) / 2)
    noisy = latents_in(kwargs)
    assert kwargs["hidden_states"][0, :, 0, 0, -1].tolist() == [1, 0, 0], "the mask"
    given = torch.tensor([[0.0, 1.0, 1.0]]) * kwargs["timestep"]
    with torch.no_grad():
        conditions = family.encode_conditions(i2v, pixels, [None])
        text = family.encode_text(i2v, PROMPTS[:1])
        # What stands in the given frame's place among the noisy ones is not looked at.
        noise = torch.cat([torch.randn_like(noisy[:, :, :1]), noisy[:, :, 1:]], dim=2)
        found = family.predict(i2v, i2v.transformer, noise, given, {**text, **conditions})
        other = family.predict(i2v, i2v.transformer, noise, kwargs["timestep"].expand(1, 3), {**text, **conditions})
    torch.testing.assert_close(conditions[family.LATENTS], noisy[:, :, 0], **NEAR)
    torch.testing.assert_close(found, expected, **NEAR)
    assert (other - found).abs().max() > 1e-3, "without a given frame it must differ"


def test_text_to_video_reads_no_image(t2v: Any) -> None:
    assert family.encode_conditions(t2v, clips(), [None]) == {}


@pytest.mark.parametrize(("height", "width", "scale"), [(480, 854, (1, 2, 2)), (512, 896, (1, 3.16, 3.16))])
def test_positions_are_scaled_by_the_size_in_pixels(
    t2v: Any, height: int, width: int, scale: tuple[float, ...]
) -> None:
    """As in the pipeline, which has two scales."""
    told: list[dict[str, Any]] = []

    def model(**kwargs: Any) -> Any:
        told.append(kwargs)
        return SimpleNamespace(sample=kwargs["hidden_states"][..., :4])

    noisy = torch.zeros(1, 4, 2, height // 8, width // 8 // 2 * 2)
    with torch.no_grad():
        family.predict(t2v, model, noisy, torch.tensor([500.0]), family.encode_text(t2v, PROMPTS[:1]))
    assert told[0]["scale_factor"] == scale
    assert [len(places) for places in told[0]["visual_rope_pos"]] == [2, height // 16, width // 16]


def test_encoded_clips_decode_to_themselves_and_nothing_else(t2v: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pipeline hands its VAE to decode is what the VAE said of the clip."""
    pixels, seen = clips(), []

    def decode(value: torch.Tensor) -> Any:
        seen.append(value)
        return SimpleNamespace(sample=pixels)

    with torch.no_grad():
        latents, posterior = family.encode_video(t2v, pixels), t2v.vae.encode(pixels).latent_dist.mode()
    whole = torch.cat([latents, torch.zeros_like(latents), torch.zeros_like(latents[:, :1])], dim=1)
    monkeypatch.setattr(t2v.vae, "decode", decode)
    monkeypatch.setattr(t2v.scheduler, "step", lambda _output, _time, sample, **_kwargs: (sample,))
    t2v(
        PROMPTS[0],
        num_inference_steps=1,
        latents=whole.permute(0, 2, 3, 4, 1).contiguous(),
        output_type="pt",
        **OPTIONS,
    )
    torch.testing.assert_close(seen[0], posterior, **NEAR)
    assert compression(t2v, t2v.transformer) == (4, 16)


def test_text_has_one_shape_whatever_it_says(t2v: Any) -> None:
    captions = [PROMPTS[0], "", "red " * 600]
    with torch.no_grad():
        both, apart = family.encode_text(t2v, captions), [family.encode_text(t2v, [caption]) for caption in captions]
    for name, states in both.items():
        assert torch.equal(states, torch.cat([one[name] for one in apart]))
    assert both["states"].shape == (3, 512, 16)
    assert both["mask"][2].all(), "a long caption is cut off"


def test_noise_levels_are_the_schedulers(t2v: Any, i2v: Any, tmp_path: Path) -> None:
    flow = RectifiedFlow(shift=5.0)
    assert family.objective(t2v, settings(tmp_path, tmp_path)) == flow
    assert family.objective(i2v, settings(tmp_path, tmp_path)) == FirstFrameFlow(flow=flow)
    some = settings(tmp_path, tmp_path, first_frame=0.25)
    assert family.objective(i2v, some) == FirstFrameFlow(flow=flow, share=0.25)


def sparse() -> Any:
    """Of the 10-second models' kind."""
    windows = {"attention_wT": 3, "attention_wH": 3, "attention_wW": 3, "attention_add_sta": True}
    shape = {"model_dim": 32, "axes_dims": (4, 6, 6)}  # flex attention takes heads of powers of two
    kind = {"attention_type": "nabla", "attention_P": 0.9, "attention_method": "topcdf"}
    return quiet(Kandinsky5T2VPipeline(**components(**windows, **shape, **kind)))


# Nothing is compiled here, so torch computes the whole matrix, and says so.
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_sparse_attention_is_asked_for_as_the_pipeline_does() -> None:
    pipeline = sparse()
    with torch.no_grad(), attention_backend("flex"):
        kwargs, expected = recorded_call(pipeline, prompt=PROMPTS[0], height=128, width=128)
        noisy = latents_in(kwargs)
        text = family.encode_text(pipeline, PROMPTS[:1])
        found = family.predict(pipeline, pipeline.transformer, noisy, kwargs["timestep"], text)
        torch.testing.assert_close(found, expected, **NEAR)
        with pytest.raises(TrainError, match="takes frames of sides that 128 divides"):
            family.predict(pipeline, pipeline.transformer, noisy[..., :8], kwargs["timestep"], text)


def test_sparse_attention_does_not_train_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="trains on a GPU only"):
        family.objective(sparse(), settings(tmp_path, tmp_path))


def test_pictures_are_not_trained_on(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="SimpleNamespace: of Kandinsky 5, text to video and image to video"):
        family.objective(SimpleNamespace(), settings(tmp_path, tmp_path))
