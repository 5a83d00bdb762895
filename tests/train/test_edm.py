"""EDM against the reference's loss and gradients, its schedule, and diffusers' scheduler; SVD's conditions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoModel
from exvideo_cases import GOLDENS, apply_weights, tensors_of
from tiny_svd import scheduler

from modelgrow.surgery.diffsynth import our_names
from modelgrow.train.families import svd
from modelgrow.train.families.motion import THRESHOLDS, motion_bucket, motion_score
from modelgrow.train.objectives import Edm, objective_of
from modelgrow.train.objectives.edm import karras_levels

REFERENCE_SCALE = 0.13025
"""What the reference's script scales latents by; the golden's are scaled so already."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoModel.from_pretrained(str(apply_weights("case_a", tmp_path_factory.mktemp("a") / "grown"))).train()


@pytest.mark.parametrize("draw", ["a", "b", "c"])
def test_loss_and_gradients_are_the_reference_s(draw: str, model: Any) -> None:
    held = tensors_of("train/train.safetensors")
    sigma, index = held[f"{draw}.sigma"][None], int(held[f"{draw}.index"])
    objective = Edm(kind="exvideo", contrast=held[f"{draw}.contrast_enhance_scale"].item())
    assert objective.contrast == pytest.approx(1.01)
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
    error = (answer - objective.target(latents, noise, sigma)).square().mean()
    loss = error * objective.weights(sigma)[0]
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
