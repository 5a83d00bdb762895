"""A family calls its model as its pipeline does: recorded inside a pipeline's run, asked again outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES, build_pipeline
from tiny_pipelines import save_tiny_wan

from modelgrow.pipelines.generate import GenerateOptions, generate
from modelgrow.pipelines.load import load_pipeline
from modelgrow.surgery import TrainError
from modelgrow.train.families import family_of
from modelgrow.train.objectives import Diffusion, RectifiedFlow, objective_of

PROMPT = "a red circle moves right"


@pytest.fixture(params=["wan", "cogvideox", "cogvideox-rope", "ltx"])
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "wan":
        return load_pipeline(save_tiny_wan(tmp_path / "wan"), device="cpu")
    return load_pipeline(build_pipeline(FAMILIES[request.param], tmp_path / "tiny"), device="cpu")


def unpacked(pipeline: Any, states: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """What the model saw, as latents (B, C, F, h, w)."""
    if states.ndim == 5:
        return states if type(pipeline).__name__ == "WanPipeline" else states.transpose(1, 2)
    frames, height, width = shape
    latents: torch.Tensor = pipeline._unpack_latents(
        states,
        frames,
        height,
        width,
        pipeline.transformer_spatial_patch_size,
        pipeline.transformer_temporal_patch_size,
    )
    return latents


def test_predict_is_the_pipelines_call(pipeline: Any) -> None:
    calls: list[tuple[dict[str, Any], torch.Tensor]] = []
    model = pipeline.transformer
    handle = model.register_forward_hook(
        lambda _module, _args, kwargs, output: calls.append((kwargs, output[0])), with_kwargs=True
    )
    options = GenerateOptions(
        prompt=PROMPT, num_frames=9, height=32, width=64, num_inference_steps=2, guidance_scale=1.0
    )
    generate(pipeline, options)
    handle.remove()
    family = family_of(type(model).__name__)
    kwargs, expected = calls[0]
    shape = (kwargs.get("num_frames", 0), kwargs.get("height", 0), kwargs.get("width", 0))
    noisy = unpacked(pipeline, kwargs["hidden_states"], shape)
    text = family.encode_text(pipeline, [PROMPT])
    with torch.no_grad():
        found = family.predict(pipeline, model, noisy, kwargs["timestep"], text)
        other = family.predict(pipeline, model, noisy, kwargs["timestep"], family.encode_text(pipeline, [""]))
    assert found.shape == noisy.shape
    # Not to the bit: the pipeline hands its states over in another memory layout, and CPU kernels follow that.
    torch.testing.assert_close(found, unpacked(pipeline, expected, shape), rtol=1e-4, atol=1e-5)
    assert (other - found).abs().max() > 3e-4, "another prompt must differ"


def test_encoded_clips_decode_to_themselves_and_nothing_else(pipeline: Any) -> None:
    """Latents are in the measure that the pipeline decodes: its own decoding of them is the VAE's reconstruction."""
    family = family_of(type(pipeline.transformer).__name__)
    pixels = torch.rand(1, 3, 9, 32, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = family.encode_video(pipeline, pixels)
        posterior = pipeline.vae.encode(pixels).latent_dist.mode()
    vae = pipeline.vae
    if type(pipeline).__name__ == "WanPipeline":  # pipeline_wan.py, __call__: latents / (1 / std) + mean
        mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
        decoded = latents / (1.0 / std) + mean
    elif type(pipeline).__name__ == "LTXPipeline":
        decoded = pipeline._denormalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    else:
        decoded = latents / vae.config.scaling_factor
    torch.testing.assert_close(decoded, posterior, rtol=1e-5, atol=1e-5)
    assert latents.shape[1] == vae.config.get("latent_channels", vae.config.get("z_dim"))


def test_objective_follows_the_scheduler(pipeline: Any) -> None:
    objective = objective_of(pipeline.scheduler)
    if type(pipeline).__name__ == "CogVideoXPipeline":
        assert isinstance(objective, Diffusion)
        assert objective.prediction == pipeline.scheduler.config.prediction_type
    else:
        assert isinstance(objective, RectifiedFlow)
        assert objective.shift == pipeline.scheduler.config.shift


def test_what_is_not_trained_yet_says_so() -> None:
    with pytest.raises(TrainError, match="HomemadeTransformer3DModel can grow, but not be trained here yet"):
        family_of("HomemadeTransformer3DModel")
