"""Open-Sora's sampling against the reference's own numbers.

`i2v` and `i2v_roundoff` were made with the reference's unmodified `RFLOW.sample` and the model of `t2v`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers import scheduling_ddpm
from open_sora_flow_case import GOLDENS, denoiser, load_model, tensors
from safetensors.torch import load_file
from stdit_cases import inputs_of, load_case
from tiny_open_sora import open_sora

from modelgrow.pipelines.open_sora.assemble import diffusion_scheduler
from modelgrow.pipelines.open_sora.denoise import Denoiser, sample_diffusion, sample_flow
from modelgrow.pipelines.open_sora.flow import FrameConditions, set_flow_timesteps, timestep_shift, timestep_transform
from modelgrow.pipelines.open_sora.text import TextStates, null_caption
from modelgrow.surgery import GenerateError

ATOL = 2e-5


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model("t2v")


@pytest.fixture(scope="module")
def case() -> dict[str, torch.Tensor]:
    return tensors("t2v")


def test_the_transform_is_the_references_to_the_bit() -> None:
    for row in json.loads((GOLDENS / "timestep_transform.json").read_text()):
        size = row["height"], row["width"], row["num_frames"]
        found = timestep_transform(torch.tensor(row["t_in"]), *size)
        if 1 < row["num_frames"] < 17:
            # The reference has NaN here. It counts as one chunk instead.
            assert row["t_out"][0] is None
            assert torch.equal(found, timestep_transform(torch.tensor(row["t_in"]), *size[:2], 17))
            continue
        assert found.tolist() == row["t_out"]
        assert math.isclose(timestep_shift(*size), row["ratio"], rel_tol=1e-6)


@torch.no_grad()
def test_text_to_video(model: Any, case: dict[str, torch.Tensor]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    timesteps = set_flow_timesteps(scheduler, 30, height=240, width=426, num_frames=17)
    assert torch.equal(timesteps, case["timesteps"][:, 0])
    guided = denoiser(model, case, height=240, width=426)
    prompted, opposed = case["model_out_step0"].chunk(2)
    expected = opposed[:, :4] + 7 * (prompted[:, :4] - opposed[:, :4])
    found = guided.predict(case["z"], timesteps[0])
    torch.testing.assert_close(found[:, :4], expected, rtol=0, atol=7 * ATOL)
    torch.testing.assert_close(found[:, 4:], prompted[:, 4:], rtol=0, atol=ATOL)
    sample = sample_flow(guided, scheduler, case["z"])
    torch.testing.assert_close(sample, case["sample"], rtol=0, atol=ATOL)
    set_flow_timesteps(scheduler, 30, height=240, width=426, num_frames=34)
    assert (sample_flow(guided, scheduler, case["z"]) - case["sample"]).abs().max() > 0.01


@pytest.mark.parametrize(("name", "size"), [("i2v", 256), ("i2v_roundoff", 32)])
@torch.no_grad()
def test_frames_that_are_given(model: Any, case: dict[str, torch.Tensor], name: str, size: int) -> None:
    golden = load_file(GOLDENS / f"{name}.safetensors")
    scheduler = FlowMatchEulerDiscreteScheduler()
    timesteps = set_flow_timesteps(scheduler, 10, height=size, width=size, num_frames=17)
    # At small sizes t begins above 1000, and nothing is denoised in the first step.
    assert (timesteps[0] > 1000) == (name == "i2v_roundoff")
    assert golden["frame_mask"][0].any() == (name == "i2v")
    seen: list[torch.Tensor] = []
    hook = model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["frame_mask"]), with_kwargs=True)
    noise = iter(golden["noise"])
    guided = denoiser(model, case, height=size, width=size)
    sample = sample_flow(guided, scheduler, golden["latents"], ratios=golden["ratios"], noise=lambda: next(noise))
    hook.remove()
    assert torch.equal(torch.stack([mask.chunk(2)[1] for mask in seen]), golden["frame_mask"])
    torch.testing.assert_close(sample, golden["sample"], rtol=0, atol=ATOL)
    given = (golden["ratios"] == 0)[:, None, :, None, None]
    assert torch.equal(sample * given, golden["latents"] * given)


def test_noise_is_added_once_when_a_frames_time_comes() -> None:
    conditions = FrameConditions(torch.tensor([[0.0, 0.3, 1.0]]))
    latents, noise = torch.zeros(1, 1, 3, 1, 1), torch.ones(1, 1, 3, 1, 1)
    seen = []
    for timestep in (1000.0, 301.0, 299.0, 10.0):
        noisy, denoised = conditions.begin_step(latents, noise, torch.tensor(timestep))
        seen.append((denoised[0].tolist(), noisy.flatten().tolist()))
    torch.testing.assert_close(seen[2][1], [0.0, 0.299, 0.0])
    assert [masked for masked, _ in seen] == [
        [False, False, True],
        [False, False, True],
        [False, True, True],
        [False, True, True],
    ]
    assert [values for _, values in seen[:2]] == [[0.0] * 3] * 2
    assert seen[3][1] == [0.0] * 3
    ended = conditions.end_step(noise, latents, torch.tensor([seen[3][0]]))
    assert ended.flatten().tolist() == [0.0, 1.0, 1.0]


@torch.no_grad()
def test_version_1_is_the_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`iddpm` was made with the reference's unmodified IDDPM, ten steps, three channels guided."""
    golden = load_file(GOLDENS.parent / "stdit1" / "iddpm.safetensors")
    inputs = inputs_of("stdit1/case_a")
    model = load_case("stdit1/case_a", tmp_path / "stdit1")
    text = TextStates(states=inputs["encoder_hidden_states"][:, 0], mask=inputs["encoder_attention_mask"])
    guided = text.guided_by(null_caption(model, text))
    scheduler = diffusion_scheduler()
    scheduler.set_timesteps(10)
    noise = iter(golden["noise"])
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(noise))
    three = Denoiser(transformer=model, text=guided, fps=8, height=64, width=48, guidance_channels=3)
    sample = sample_diffusion(three, scheduler, golden["latents"])
    # Of the last step's weight on the clean latents, 1, the reference's float32 leaves this.
    beta = torch.tensor(1e-4)
    rounded = beta / (1 - (1 - beta))
    assert 0.9998 < rounded < 0.9999
    scale = golden["sample"].abs().max()
    torch.testing.assert_close(sample * rounded / scale, golden["sample"] / scale, rtol=0, atol=2e-5)


class Constant(torch.nn.Module):
    """Answers the prompts' half with 2, the other with 1, variances with 0.5."""

    def cache_context(self, _name: str) -> Any:
        return torch.no_grad()

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        half = len(hidden_states) // 2
        answer = torch.full_like(hidden_states, 1.0)
        answer[half:] = 2.0
        return (torch.cat([answer, torch.full_like(answer, 0.5)], dim=1),)


def test_version_1_guides_three_channels_of_four() -> None:
    text = TextStates(states=torch.zeros(2, 3, 4), mask=torch.ones(2, 3, dtype=torch.long))
    model = Denoiser(transformer=Constant(), text=text, fps=8, height=16, width=16, guidance_channels=3)
    answer = model.predict(torch.zeros(1, 4, 2, 2, 2), torch.tensor(5))
    assert answer[0, :, 0, 0, 0].tolist() == [8.0, 8.0, 8.0, 2.0, 0.5, 0.5, 0.5, 0.5]


def test_version_1_is_ancestral_sampling_with_learned_variances() -> None:
    """One step of Nichol and Dhariwal's sampler (arXiv 2102.09672, equation 15), worked out by hand."""
    scheduler = diffusion_scheduler()
    scheduler.set_timesteps(100)
    assert scheduler.timesteps[:3].tolist() == [999, 989, 979]
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    products = torch.cumprod(1 - betas, 0)
    now, before = products[999], products[989]
    beta = 1 - now / before
    low, high = torch.log(beta * (1 - before) / (1 - now)), torch.log(beta)
    latents, noise = torch.full((1, 4, 1, 1, 1), 0.7), 8.0
    clean = (0.7 - (1 - now).sqrt() * noise) / now.sqrt()
    mean = (before.sqrt() * beta * clean + (now / before).sqrt() * (1 - before) * 0.7) / (1 - now)
    spread = torch.exp(0.5 * (0.75 * high + 0.25 * low))
    text = TextStates(states=torch.zeros(2, 3, 4), mask=torch.ones(2, 3, dtype=torch.long))
    model = Denoiser(transformer=Constant(), text=text, fps=8, height=16, width=16)
    drawn = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).double()
    steps: list[torch.Tensor] = []
    scheduler.timesteps = scheduler.timesteps[:1]
    generator = torch.Generator().manual_seed(0)
    scheduler.timesteps = torch.tensor([999, 989])

    def keep(_step: int, _timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        steps.append(latents)
        return latents

    sample_diffusion(model, scheduler, latents, generator=generator, on_step=keep)
    torch.testing.assert_close(steps[0].double(), mean + spread * drawn, rtol=1e-4, atol=1e-3)


def test_other_diffusion_samplers_leave_the_variances_out() -> None:
    text = TextStates(states=torch.zeros(2, 3, 4), mask=torch.ones(2, 3, dtype=torch.long))
    model = Denoiser(transformer=Constant(), text=text, fps=8, height=16, width=16)
    scheduler = DDIMScheduler.from_config(diffusion_scheduler().config)
    scheduler.set_timesteps(2)
    assert sample_diffusion(model, scheduler, torch.zeros(1, 4, 1, 1, 1)).shape == (1, 4, 1, 1, 1)


def test_the_null_caption_is_as_long_as_its_prompt() -> None:
    pipeline = open_sora()
    states, mask, null, null_mask = pipeline.encode_prompt(["a red circle", "circle"])
    assert mask.sum(1).tolist() == null_mask.sum(1).tolist() == [4, 2]
    assert torch.equal(null[1], pipeline.transformer.y_embedder.y_embedding)
    text = TextStates(states=torch.zeros(1, 13, 16), mask=mask)
    with pytest.raises(GenerateError, match="null caption has 12 tokens"):
        null_caption(pipeline.transformer, text)
    assert not torch.equal(states[0], states[1])
