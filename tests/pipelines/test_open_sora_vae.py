"""Open-Sora's VAE against the reference's own numbers, and as a diffusers model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from models import build
from safetensors.torch import load_file, save_file
from tiny_open_sora import SPATIAL, VAE_1_2

from modelgrow.pipelines import AutoencoderKLOpenSora
from modelgrow.pipelines.open_sora.temporal_vae import TemporalVAE
from modelgrow.pipelines.open_sora.vae_config import SDXL_VAE, TEMPORAL, from_published
from modelgrow.surgery import CheckpointError, GenerateError

GOLDENS = Path(__file__).parents[1] / "goldens" / "opensora_vae"
ATOL = 2e-5


def published(folder: Path) -> Path:
    """The golden model as its authors would publish it: the 2D VAE elsewhere, the shift in the weights too."""
    golden = json.loads((GOLDENS / "config.json").read_text())
    flat = folder / "flat"
    flat.mkdir(parents=True)
    (flat / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL", **golden["spatial"]}))
    config = {
        "model_type": "VideoAutoencoderPipeline",
        "vae_2d": {"type": "VideoAutoencoderKL", "from_pretrained": str(flat), "micro_batch_size": 4},
        "vae_temporal": {"type": "VAE_Temporal", "from_pretrained": None, **golden["temporal"]},
        **{name: golden[name] for name in ("micro_frame_size", "shift", "scale")},
    }
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(GOLDENS / "weights.safetensors", folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model, info = AutoencoderKLOpenSora.from_pretrained(
        published(tmp_path_factory.mktemp("vae") / "published"), output_loading_info=True
    )
    assert not any(info.values())
    return model


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDENS / "inputs.safetensors") | load_file(GOLDENS / "outputs.safetensors")


@pytest.mark.parametrize("frames", [1, 5, 16, 17])
@torch.no_grad()
def test_the_temporal_part_is_the_references(vae: Any, frames: int) -> None:
    golden = load_file(GOLDENS / "temporal.safetensors")
    moments = vae.temporal_vae.encode(golden[f"x_{frames}"])
    torch.testing.assert_close(moments, golden[f"moments_{frames}"], rtol=0, atol=ATOL)
    decoded = vae.temporal_vae.decode(moments.chunk(2, dim=1)[0], frames)
    torch.testing.assert_close(decoded, golden[f"decoded_{frames}"], rtol=0, atol=ATOL)


@pytest.mark.parametrize("frames", [1, 17, 39])
@torch.no_grad()
def test_the_whole_is_the_references(vae: Any, golden: dict[str, torch.Tensor], frames: int) -> None:
    latents = vae.encode(golden[f"video_{frames}"]).latent_dist.mode()
    torch.testing.assert_close(latents, golden[f"latent_{frames}"], rtol=0, atol=ATOL)
    decoded = vae.decode(golden[f"latent_{frames}"], num_frames=frames).sample
    torch.testing.assert_close(decoded, golden[f"decoded_{frames}"], rtol=0, atol=ATOL)
    assert (decoded - golden[f"decoded_{frames}"].roll(1, -1)).abs().max() > 100 * ATOL


def test_lengths(vae: Any) -> None:
    expected = {1: 1, 4: 1, 5: 2, 16: 4, 17: 5, 18: 6, 21: 6, 22: 7, 34: 10, 39: 12, 51: 15, 408: 120}
    assert {frames: vae.latent_frames(frames) for frames in expected} == expected
    assert [vae.pixel_frames(latent) for latent in (1, 2, 5, 6, 12, 15)] == [1, 5, 17, 18, 39, 51]
    assert all(vae.latent_frames(vae.pixel_frames(latent)) == latent for latent in range(1, 40))


@torch.no_grad()
def test_any_length_comes_back_and_chunks_do_not_see_each_other(vae: Any) -> None:
    frames = torch.randn(1, 3, 23, 16, 16, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    latents = vae.encode(frames).latent_dist.mode()
    assert latents.shape == (1, 4, 7, 2, 2)
    assert vae.decode(latents, num_frames=23).sample.shape == frames.shape
    torch.testing.assert_close(vae.encode(frames[:, :, :17]).latent_dist.mode(), latents[:, :, :5], rtol=0, atol=1e-5)
    with pytest.raises(GenerateError, match="7 latent frames can't become 30 frames"):
        vae.decode(latents, num_frames=30)


@torch.no_grad()
def test_all_frames_at_once(vae: Any) -> None:
    """The reference's micro_frame_size = None: one chunk, as long as the clip."""
    whole = AutoencoderKLOpenSora.from_config({**vae.config, "micro_frame_size": None}).eval()
    whole.load_state_dict(vae.state_dict())
    frames = torch.rand(2, 3, 23, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert [whole.latent_frames(count) for count in (1, 4, 5, 17, 23)] == [1, 1, 2, 5, 6]
    assert [whole.pixel_frames(latent) for latent in (1, 2, 5, 6)] == [1, 5, 17, 21]
    short, chunked = (model.encode(frames[:, :, :17]).latent_dist.mode() for model in (whole, vae))
    assert torch.equal(short, chunked)
    latents = whole.encode(frames).latent_dist.mode()
    assert latents.shape[2] == 6
    assert not torch.allclose(latents[:, :, :5], short, atol=1e-3)
    assert whole.decode(latents, num_frames=23).sample.shape == frames.shape


@torch.no_grad()
def test_slicing_changes_nothing_and_tiling_little(vae: Any) -> None:
    frames = torch.rand(2, 3, 5, 48, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = vae.encode(frames).latent_dist.mode()
    decoded = vae.decode(latents, num_frames=5).sample
    vae.enable_slicing()
    torch.testing.assert_close(vae.encode(frames).latent_dist.mode(), latents, rtol=0, atol=1e-4)
    torch.testing.assert_close(vae.decode(latents, num_frames=5).sample, decoded, rtol=0, atol=1e-4)
    vae.disable_slicing()
    vae.enable_tiling()
    assert vae.spatial_vae.use_tiling
    tiled = vae.decode(latents, num_frames=5).sample
    vae.disable_tiling()
    assert tiled.shape == decoded.shape
    assert not torch.equal(tiled, decoded)
    assert torch.equal(vae.decode(latents, num_frames=5).sample, decoded)


@torch.no_grad()
def test_samples_are_drawn_around_the_mean(vae: Any, golden: dict[str, torch.Tensor]) -> None:
    posterior = vae.encode(golden["video_17"]).latent_dist
    drawn = torch.stack([posterior.sample(torch.Generator().manual_seed(seed)) for seed in range(200)])
    error = (drawn.mean(0) - posterior.mode()) / (posterior.std / 200**0.5)
    assert error.abs().max() < 6
    torch.testing.assert_close(drawn.std(0) / posterior.std, torch.ones_like(posterior.std), rtol=0, atol=0.3)
    # The spread is normalized as the mean is: what the temporal part says, over the scale.
    spatial = golden["spatial_latent_17"]
    raw = vae.temporal_vae.encode(spatial).chunk(2, dim=1)[1].clamp(-30, 20).div(2).exp()
    scale = torch.tensor(vae.config.scale).view(1, -1, 1, 1, 1)
    torch.testing.assert_close(posterior.std, raw / scale, rtol=1e-4, atol=1e-6)
    both = vae.encode(golden["video_17"], sample_spatial=True, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(both.latent_dist.mode(), posterior.mode(), atol=1e-3)


def test_its_own_folder_loads_and_saves_the_same(vae: Any, tmp_path: Path) -> None:
    vae.save_pretrained(tmp_path / "own")
    again = AutoencoderKLOpenSora.from_pretrained(tmp_path / "own")
    again.save_pretrained(tmp_path / "twice")
    files = [tmp_path / name / "diffusion_pytorch_model.safetensors" for name in ("own", "twice")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert again.config["scale"] == [3.85, 2.32, 2.33, 3.06]
    assert not [name for name in again.state_dict() if name in ("scale", "shift")]
    half = AutoencoderKLOpenSora.from_pretrained(tmp_path / "own", torch_dtype=torch.bfloat16)
    frames = torch.zeros(1, 3, 2, 16, 16)
    assert half.encode(frames).latent_dist.mode().dtype == torch.float32
    assert half.decode(torch.zeros(1, 4, 1, 2, 2), num_frames=2).sample.dtype == torch.bfloat16


def test_the_published_config_means_the_real_sizes() -> None:
    published = {
        "model_type": "VideoAutoencoderPipeline",
        "vae_2d": {
            "type": "VideoAutoencoderKL",
            "from_pretrained": "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
            "subfolder": "vae",
            "micro_batch_size": 4,
        },
        "vae_temporal": {"type": "VAE_Temporal_SD", "from_pretrained": None},
        "micro_frame_size": 17,
        "shift": [-0.1, 0.34, 0.27, 0.98],
        "scale": [3.85, 2.32, 2.33, 3.06],
    }
    config = from_published(published)
    assert config["spatial"] == SDXL_VAE
    assert config["temporal"] == TEMPORAL
    with torch.device("meta"):
        parts = AutoencoderKLOpenSora(**config), TemporalVAE(), AutoencoderKL(**SDXL_VAE)
    counts = [sum(parameter.numel() for parameter in part.parameters()) for part in parts]
    assert counts == [393_341_007, 309_687_144, 83_653_863]
    with pytest.raises(CheckpointError, match="vae_2d"):
        from_published({"model_type": "else"})


@torch.no_grad()
def test_without_time_it_is_the_2d_vae_frame_by_frame() -> None:
    flat = build("AutoencoderKL", SPATIAL, seed=3)
    vae = AutoencoderKLOpenSora.from_spatial(flat)
    frames = torch.rand(2, 3, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = vae.encode(frames).latent_dist.mode()
    expected = flat.encode(frames[1, :, 2][None]).latent_dist.mode() * 0.18215
    torch.testing.assert_close(latents[1, :, 2][None], expected, rtol=0, atol=1e-5)
    back = vae.decode(latents).sample
    torch.testing.assert_close(back[1, :, 2][None], flat.decode(expected / 0.18215).sample, rtol=0, atol=1e-5)
    assert vae.latent_frames(16) == vae.pixel_frames(16) == 16


def test_a_table_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(GenerateError, match="shift has 3 numbers"):
        AutoencoderKLOpenSora(**VAE_1_2, shift=[0.0, 0.0, 0.0])


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    folder = published(tmp_path / "published")
    weights = load_file(folder / "model.safetensors")
    weights["temporal_vae.quant_conv.conv.bias"] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"temporal_vae\.quant_conv\.conv\.bias"):
        AutoencoderKLOpenSora.from_pretrained(folder)
