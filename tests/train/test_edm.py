"""EDM against the reference's loss and gradients, its schedule, and diffusers' scheduler; SVD's conditions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoModel
from exvideo_cases import GOLDENS, apply_weights, extend, tensors_of
from PIL import Image
from safetensors.torch import load_file
from tiny_svd import save_tiny_svd, scheduler

from modelgrow.pipelines.exvideo.latents import sigmas_from
from modelgrow.pipelines.load import load_pipeline
from modelgrow.surgery import TrainError, open_checkpoint
from modelgrow.surgery.diffsynth import our_names
from modelgrow.train.batch import text_of
from modelgrow.train.families import svd
from modelgrow.train.families.motion import THRESHOLDS, motion_bucket, motion_score
from modelgrow.train.objectives import Edm, objective_of
from modelgrow.train.objectives.edm import karras_levels
from modelgrow.train.objectives.objective import mean_error
from modelgrow.train.run import train
from modelgrow.train.settings import Settings, changed

# diffusers' Euler scheduler with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WEIGHTS = "diffusion_pytorch_model.safetensors"
REFERENCE_SCALE = 0.13025
"""What the reference's script scales latents by; the golden's are scaled so already."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoModel.from_pretrained(str(apply_weights("case_a", tmp_path_factory.mktemp("a") / "grown"))).train()


@pytest.mark.parametrize("draw", ["a", "b"])
def test_loss_and_gradients_are_the_reference_s(draw: str, model: Any) -> None:
    held = tensors_of("train/train.safetensors")
    sigma, index = held[f"{draw}.sigma"][None], int(held[f"{draw}.index"])
    objective = Edm(kind="exvideo", contrast=held[f"{draw}.contrast_enhance_scale"].item())
    torch.testing.assert_close(karras_levels(1000, low=0.002, high=700.0)[index], sigma[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(objective.timesteps(sigma)[0], held[f"{draw}.timestep"])

    latents, noise = (held[name].transpose(0, 1)[None] for name in ("latents", "noise"))
    text = {
        svd.LATENTS: latents[:, :, 0] / REFERENCE_SCALE,
        svd.STATES: held["clip"][None],
        svd.NUMBERS: held[f"{draw}.add_time_id"],
    }
    noisy = objective.noisy(latents, noise, sigma)
    sees = torch.cat([noisy, text[svd.LATENTS][:, :, None].expand(-1, -1, 12, -1, -1)], dim=1)
    torch.testing.assert_close(sees[0].transpose(0, 1), held[f"{draw}.latents_input"], rtol=1e-5, atol=1e-5)

    model.zero_grad()
    answer = svd.predict(None, model, noisy, objective.timesteps(sigma), text)
    torch.testing.assert_close(answer[0].transpose(0, 1), held[f"{draw}.model_pred"], rtol=0, atol=2e-5)
    loss = mean_error(objective, answer, objective.target(latents, noise, sigma), sigma)
    torch.testing.assert_close(loss, held[f"{draw}.reweighted_loss"], rtol=1e-5, atol=1e-6)
    plain = (objective.clip(answer, noisy, sigma) - objective.contrast * latents).square().mean()
    torch.testing.assert_close(plain, held[f"{draw}.loss"], rtol=1e-5, atol=1e-6)

    loss.backward()
    gradients = {key.removeprefix("a.grad."): value for key, value in held.items() if ".grad." in key}
    names = our_names(gradients, dict(model.named_parameters()), where="golden", base="case_a")
    assert len(gradients) == 24
    for key, expected in gradients.items() if draw == "a" else ():
        found = model.get_parameter(names[key]).grad
        assert (found - expected).abs().max() <= 2e-5 * expected.abs().max() + 1e-8, key


def test_the_weighted_v_error_is_the_weighted_clip_error() -> None:
    """sqrt(s^2 + 1) / s times the error of x, as the script has it; (s^2 + 1) / s^2 times, as EDM has it."""
    generator = torch.Generator().manual_seed(0)
    latents, noise, answer = (torch.randn(4, 2, 3, 4, 4, generator=generator) for _ in range(3))
    levels = torch.tensor([0.03, 0.9, 7.0, 300.0])
    weights = {"standard": (levels**2 + 1) / levels**2, "exvideo": (levels**2 + 1).sqrt() / levels}
    for kind, weight in weights.items():
        objective = Edm(kind=kind, contrast=1.01, scale=0.7)
        noisy = objective.noisy(latents, noise, levels)
        clips = (objective.clip(answer, noisy, levels) - 1.01 * 0.7 * latents).square().flatten(1).mean(1)
        found = mean_error(objective, answer, objective.target(latents, noise, levels), levels)
        torch.testing.assert_close(found, (weight * clips).mean(), rtol=2e-4, atol=0)


def test_levels() -> None:
    standard = Edm().draw(20_000, torch.Generator().manual_seed(0)).log()
    assert standard.mean().item() == pytest.approx(0.7, abs=0.05)
    assert standard.std().item() == pytest.approx(1.6, abs=0.05)
    script = Edm(kind="exvideo").draw(20_000, torch.Generator().manual_seed(0))
    table = tensors_of("scheduler/scheduler.safetensors")["sigmas_n1000_s1.0"]
    torch.testing.assert_close(karras_levels(1000, low=0.002, high=700.0), table, rtol=2e-5, atol=0)
    assert all((level / table - 1).abs().min() < 1e-4 for level in script[:200])
    assert script.median().item() == pytest.approx(15.6, rel=0.1)


def test_objective_is_the_reference_s_schedule() -> None:
    held = tensors_of("scheduler/scheduler.safetensors")
    objective = Edm(kind="exvideo")
    for index in (0, 10, 30, 48, 49):
        sigma = held["sigmas_n50_s1.0"][index][None]
        noisy = objective.noisy(held["x0"][None], held["noise"][None], sigma)
        torch.testing.assert_close(noisy[0], held[f"add_noise_{index}"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(objective.timesteps(sigma)[0], held["timesteps_n50_s1.0"][index], rtol=1e-5, atol=0)
        clip = objective.clip(held["model_output"][None], held[f"add_noise_{index}"][None], sigma)
        torch.testing.assert_close(clip[0], held[f"to_final_{index}"], rtol=1e-5, atol=1e-5)
        weight = objective.weights(sigma).flatten()[0] * (sigma[0] ** 2 + 1) / sigma[0] ** 2
        torch.testing.assert_close(weight, held["training_weight_n50_s1.0"][index], rtol=1e-4, atol=0)


@pytest.mark.parametrize("steps", [4, 20, 50])
def test_diffusers_scheduler_has_the_reference_s_tables(steps: int) -> None:
    """So that what trains by this objective is what EulerDiscreteScheduler integrates."""
    held = tensors_of("scheduler/scheduler.safetensors")
    euler = scheduler()
    euler.set_timesteps(steps)
    torch.testing.assert_close(euler.sigmas[:-1], held[f"sigmas_n{steps}_s1.0"], rtol=1e-5, atol=0)
    torch.testing.assert_close(euler.timesteps, held[f"timesteps_n{steps}_s1.0"], rtol=1e-4, atol=1e-5)


def test_diffusers_scheduler_takes_the_reference_s_steps() -> None:
    """The reference's states are divided by sqrt(s^2 + 1), as its model sees them."""
    held = tensors_of("scheduler/scheduler.safetensors")
    euler = scheduler()
    for index in (0, 10, 30, 48, 49):
        euler.set_timesteps(50)
        before, after = ((sigma.square() + 1).sqrt() for sigma in euler.sigmas[index : index + 2])
        timestep = euler.timesteps[index]
        state = euler.step(held["model_output"], timestep, held[f"add_noise_{index}"] * before).prev_sample
        torch.testing.assert_close(state / after, held[f"step_{index}"], rtol=1e-4, atol=1e-4)


def test_second_stage_s_levels_are_the_reference_s() -> None:
    expected = tensors_of("scheduler/scheduler.safetensors")["sigmas_n25_s0.5"]
    found = sigmas_from(scheduler(), 25, 0.5)
    assert found.pop() == 0.0
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=0)


def test_a_true_answer_takes_the_scheduler_to_the_clip() -> None:
    euler = scheduler()
    euler.set_timesteps(6)
    objective = objective_of(euler)
    assert objective == Edm(low=0.002, high=700.0)
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(1, 4, 3, 4, 4, generator=generator) for _ in range(2))
    state = latents + noise * euler.sigmas[0]
    for sigma, timestep in zip(euler.sigmas[:-1], euler.timesteps, strict=True):
        sees = euler.scale_model_input(state, timestep)
        torch.testing.assert_close(objective.noisy(latents, noise, sigma[None]), sees, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(objective.timesteps(sigma[None])[0], timestep, rtol=1e-4, atol=1e-5)
        state = euler.step(objective.target(latents, noise, sigma[None]), timestep, state).prev_sample
    torch.testing.assert_close(state, latents, rtol=1e-3, atol=1e-3)


def test_motion_bucket() -> None:
    known = json.loads((GOLDENS / "train" / "motion_bucket.json").read_text())
    assert list(THRESHOLDS) == known["thresholds"]
    frames = tensors_of("train/train.safetensors")["frames"][None]
    torch.testing.assert_close(motion_score(frames)[0].item(), known["score"][0], rtol=1e-5, atol=0)
    assert motion_bucket(frames).tolist() == known["bucket"]
    # Two frames, -a and a: a pixel's deviation over time is a times the root of 2.
    for score, bucket in known["probes"].items():
        half = torch.full((1, 3, 1, 4, 4), float(score) / 2**0.5 * (1 + 1e-6))
        assert motion_bucket(torch.cat([-half, half], dim=2)).tolist() == [bucket]
    assert motion_bucket(torch.zeros(2, 3, 1, 4, 4)).tolist() == [0, 0]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("svd")
    save_tiny_svd(folder / "base")
    return extend(folder / "base", folder / "exvideo", 12)


def test_the_model_is_called_as_the_pipeline_calls_it(pipeline: Path) -> None:
    """Conditions and call: recorded inside the pipeline's run, asked again outside."""
    made = load_pipeline(pipeline, device="cpu")
    calls: list[tuple[Any, dict[str, Any], torch.Tensor]] = []
    handle = made.unet.register_forward_hook(
        lambda _module, args, kwargs, output: calls.append((args, kwargs, output[0])), with_kwargs=True
    )
    picture = torch.randint(256, (3, 16, 24), generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(picture.permute(1, 2, 0).numpy().astype("uint8"))
    made.set_progress_bar_config(disable=True)
    made(
        image,
        height=16,
        width=24,
        num_frames=5,
        fps=30,
        motion_bucket_id=0,
        noise_aug_strength=0.0,
        num_inference_steps=2,
        guidance_scale=1.0,
        output_type="latent",
    )
    handle.remove()
    (sample, timestep), kwargs, expected = calls[0]
    still = (picture / 127.5 - 1)[None, :, None].expand(-1, -1, 5, -1, -1)
    with torch.no_grad():
        text = svd.encode_conditions(made, still, [None])
        noisy = sample[:, :, :4].transpose(1, 2)
        found = svd.predict(made, made.unet, noisy, timestep, text)
        other = svd.predict(made, made.unet, noisy, timestep, svd.encode_conditions(made, -still, [None]))
    torch.testing.assert_close(text[svd.NUMBERS], kwargs["added_time_ids"])
    torch.testing.assert_close(text[svd.STATES], kwargs["encoder_hidden_states"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(text[svd.LATENTS], sample[:, 0, 4:], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.transpose(1, 2), expected, rtol=1e-3, atol=1e-3)
    assert (other - found).abs().max() > 1e-2
    rates = svd.encode_conditions(made, still, [8.0])[svd.NUMBERS]
    assert rates.tolist() == [[7.0, 0.0, 0.0]]


def test_a_run_trains_the_temporal_blocks_and_nothing_else(pipeline: Path, tmp_path: Path) -> None:
    settings = Settings(
        model=str(pipeline),
        data="shapes:2-3:4",
        output=str(tmp_path / "run"),
        train="grown-blocks",
        edm="exvideo",
        contrast=1.01,
        latent_scale=0.13025 / 0.18215,
        num_frames=8,
        height=16,
        width=16,
        steps=3,
        alarm_after=3,
        warmup_steps=0,
        learning_rate=1e-3,
        caption_dropout=0.5,
        tracker="none",
    )
    result = train(settings)
    before, after = (load_file(folder / "unet" / WEIGHTS) for folder in (pipeline, result.model))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    parts = (".position_table.", ".temporal_conv.", ".time_pos_embed.", ".temporal_transformer_blocks.")
    trained = {name for name in before if any(part in name for part in parts)}
    assert moved <= trained
    assert {part for part in parts if any(part in name for name in moved)} == set(parts)
    assert result.trained_parameters == sum(before[name].numel() for name in trained)
    grown = open_checkpoint(result.model / "unet")
    assert grown.record is not None
    assert [step.operation for step in grown.record.steps] == ["extend-frames", "train"]
    index = json.loads((result.model / "model_index.json").read_text())
    assert index["_class_name"] == "ExVideoPipeline"


def test_what_is_left_out_of_a_clip_is_zero() -> None:
    example = {"text.image_states": torch.ones(1, 4), "text.kept_numbers": torch.ones(3), "latents": torch.ones(2)}
    settings = Settings(model="m", data="d", output="o", caption_dropout=1.0)
    text = text_of(example, {}, settings, torch.Generator().manual_seed(0))
    assert text["image_states"].tolist() == [[0.0] * 4]
    assert text["kept_numbers"].tolist() == [1.0] * 3
    kept = text_of(example, {}, changed(settings, caption_dropout=0.0), torch.Generator().manual_seed(0))
    assert kept["image_states"].tolist() == [[1.0] * 4]


def test_settings_name_the_kinds_there_are() -> None:
    with pytest.raises(TrainError, match="edm is 'karras'; choose from standard, exvideo"):
        Settings(model="m", data="d", output="o", edm="karras")
