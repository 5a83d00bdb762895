"""Models that read a picture are called as their pipelines call them: recorded inside a run, asked again outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from tiny_from_images import BUILDERS, SIZES, tiny

from modelgrow.train.families import family_of

PROMPT = "a red circle moves right"
FIRST_OF_LATENTS = ("wan-ti2v", "ltx", "sana")


@pytest.fixture(autouse=True)
def means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some pipelines draw their picture's latents from the posterior; here they take its mean, as families do."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


@pytest.fixture(params=list(BUILDERS), scope="module")
def case(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, tiny(request.param)


def family_for(pipeline: Any) -> Any:
    index = {**pipeline.config, "_class_name": type(pipeline).__name__}
    return family_of(type(pipeline.transformer).__name__, dict(pipeline.transformer.config), index)


def frames_of(name: str, seed: int = 0) -> np.ndarray:
    """(T, H, W, 3), nothing but noise."""
    return np.random.default_rng(seed).integers(256, size=(*SIZES[name], 3), dtype=np.uint8)


def pixels_of(frames: np.ndarray) -> torch.Tensor:
    return torch.tensor(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1


def recorded_call(name: str, pipeline: Any, frames: np.ndarray) -> tuple[dict[str, Any], torch.Tensor]:
    """What the model is called with first in a run from the clip's first picture, and its answer."""
    calls: list[tuple[dict[str, Any], torch.Tensor]] = []

    def record(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append(({**dict(zip(("hidden_states",), args, strict=False)), **kwargs}, output[0]))

    handle = pipeline.transformer.register_forward_hook(record, with_kwargs=True)
    count, height, width = SIZES[name]
    more: dict[str, Any] = {"frames" if name == "sana" else "num_frames": count}
    if name == "sana":
        more["use_resolution_binning"] = False
    if name == "wan-flf2v":
        more["last_image"] = Image.fromarray(frames[-1])
    pipeline(
        Image.fromarray(frames[0]),
        prompt=PROMPT,
        height=height,
        width=width,
        num_inference_steps=2,
        guidance_scale=6.0 if name == "skyreels" else 1.0,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        **more,
    )
    handle.remove()
    return calls[0]


def clips_of(name: str, pipeline: Any, states: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """What goes in or comes out of the model, as (B, C, F, h, w)."""
    if name == "ltx":
        sizes = (pipeline.transformer_spatial_patch_size, pipeline.transformer_temporal_patch_size)
        unpacked: torch.Tensor = pipeline._unpack_latents(states, *shape[2:], *sizes)
        return unpacked
    return states.transpose(1, 2) if name.startswith("cogvideox") else states


def test_predict_is_the_pipelines_call(case: tuple[str, Any]) -> None:
    name, pipeline = case
    family, frames = family_for(pipeline), frames_of(name)
    kwargs, expected = recorded_call(name, pipeline, frames)
    with torch.no_grad():
        latents = family.encode_video(pipeline, pixels_of(frames))
        noisy = clips_of(name, pipeline, kwargs["hidden_states"], latents.shape)[:, : latents.shape[1]]
        timesteps = kwargs["timestep"]
        if timesteps.ndim > 1:  # of tokens: as of frames
            timesteps = timesteps.flatten(1).unflatten(1, (latents.shape[2], -1))[:, :, 0]
            assert timesteps[:, 0].tolist() == [0.0]
        text = {**family.encode_text(pipeline, [PROMPT]), **conditions(family, pipeline, frames)}
        found = family.predict(pipeline, pipeline.transformer, noisy, timesteps, text)
    assert noisy.shape == latents.shape == found.shape
    torch.testing.assert_close(found, clips_of(name, pipeline, expected, latents.shape), rtol=1e-4, atol=1e-4)


def conditions(family: Any, pipeline: Any, frames: np.ndarray) -> dict[str, torch.Tensor]:
    own = getattr(family, "encode_conditions", None)
    return dict(own(pipeline, pixels_of(frames), [None])) if own else {}


def test_only_the_picture_is_read_of_a_clip(case: tuple[str, Any]) -> None:
    """Another first frame makes another answer; another frame in the middle does not."""
    name, pipeline = case
    if name in FIRST_OF_LATENTS:
        pytest.skip("the picture is the first of the latents themselves")
    family, frames = family_for(pipeline), frames_of(name)
    middle, first, last = frames.copy(), frames.copy(), frames.copy()
    middle[1:-1], first[0], last[-1] = 255 - middle[1:-1], 255 - first[0], 255 - last[-1]
    noise = torch.randn(family.encode_video(pipeline, pixels_of(frames)).shape)
    text = family.encode_text(pipeline, [PROMPT])

    def answer(clip: np.ndarray) -> torch.Tensor:
        given = {**text, **conditions(family, pipeline, clip)}
        found: torch.Tensor = family.predict(pipeline, pipeline.transformer, noise, torch.tensor([500.0]), given)
        return found

    with torch.no_grad():
        whole = answer(frames)
        assert torch.equal(answer(middle), whole)
        assert (answer(first) - whole).abs().max() > 1e-3
        assert torch.equal(answer(last), whole) == (name != "wan-flf2v")


@pytest.mark.parametrize("name", FIRST_OF_LATENTS)
def test_the_picture_is_the_first_latent_of_its_clip(name: str) -> None:
    pipeline = tiny(name)
    family, frames = family_for(pipeline), frames_of(name)
    with torch.no_grad():
        clip, alone = (family.encode_video(pipeline, pixels_of(part)) for part in (frames, frames[:1]))
    kwargs, _ = recorded_call(name, pipeline, frames)
    sees = clips_of(name, pipeline, kwargs["hidden_states"], clip.shape)
    torch.testing.assert_close(clip[:, :, :1], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sees[:, :, :1], alone, rtol=1e-4, atol=1e-5)
