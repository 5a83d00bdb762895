"""ExVideoPipeline makes what the reference makes, is a pipeline like any other, and says what it can't make.

goldens/exvideo/pipeline was made by running modelscope/DiffSynth-Studio v1.1.9 (SVDVideoPipeline on a tiny UNet with
known encoders): see its meta.json for the settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableVideoDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from tiny_svd import UNET, components, scheduler
from transformers import CLIPImageProcessor

from modelgrow.pipelines import ExVideoPipeline, ExVideoUNetSpatioTemporalConditionModel
from modelgrow.pipelines.exvideo.latents import post_process, sigmas_from
from modelgrow.surgery import GenerateError

# diffusers' Euler scheduler with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

GOLDENS = Path(__file__).parents[1] / "goldens" / "exvideo"
ROWS = 12
"""Of the tiny model's position tables; its base was made for 6 frames."""
REFERENCE_SCALE = 0.13025
"""What the reference's latents of clips are scaled by."""
SMALL: dict[str, Any] = {
    "height": 16,
    "width": 24,
    "num_frames": 4,
    "num_inference_steps": 2,
    "output_type": "pt",
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(seed: int = 0, size: tuple[int, int] = (24, 16)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class KnownVae(torch.nn.Module):
    """Encodes any single picture to the golden's image latents, and pictures of a clip to the golden's video."""

    def __init__(self, image: torch.Tensor, video: torch.Tensor | None) -> None:
        super().__init__()
        self.image = image
        self.video = None if video is None else list(video)
        self.config = SimpleNamespace(
            block_out_channels=(1,) * 4, force_upcast=False, latent_channels=4, scaling_factor=0.18215
        )
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def encode(self, pixels: torch.Tensor) -> Any:
        known = self.image[None]
        if len(pixels) > 1:
            assert self.video is not None
            known = torch.stack([self.video.pop(0) for _ in pixels])
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: known))


class KnownEncoder(torch.nn.Module):
    def __init__(self, state: torch.Tensor) -> None:
        super().__init__()
        self.state = torch.nn.Parameter(state)
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def forward(self, pixels: torch.Tensor) -> Any:
        return SimpleNamespace(image_embeds=self.state)


@pytest.fixture(scope="module")
def goldens() -> dict[str, torch.Tensor]:
    return load_file(GOLDENS / "pipeline" / "pipeline.safetensors")


@pytest.fixture(scope="module")
def unet() -> Any:
    """case_b: the base with the extension's tables and convolutions."""
    case = GOLDENS / "case_b"
    base = load_file(case / "base" / "diffusion_pytorch_model.safetensors")
    blocks = json.loads((case / "keymap.json").read_text())["temporal_attention_blocks"]
    # The reference's converter names the middle block twice; the attention is one level above the blocks.
    paths = {i: path.replace("mid_block.mid_block", "mid_block").rpartition(".")[0] for i, path in blocks.items()}
    names = {"positional_embedding.embeddings": "position_table.weight"}
    names |= {f"positional_conv.{leaf}": f"temporal_conv.{leaf}" for leaf in ("weight", "bias")}
    for key, tensor in load_file(case / "extension.diffsynth.safetensors").items():
        _, block, leaf = key.split(".", 2)
        base[f"{paths[block]}.{names[leaf]}"] = tensor
    config = json.loads((case / "base" / "config.json").read_text())
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    model: Any = ExVideoUNetSpatioTemporalConditionModel(**config, num_position_frames=40)
    model.load_state_dict(base)
    return model.eval()


def reference(goldens: dict[str, torch.Tensor], unet: Any, case: str, **changed: Any) -> torch.Tensor:
    """The pipeline's latents (T, C, h, w) with the settings and encoders of a golden."""
    settings = json.loads((GOLDENS / "pipeline" / "meta.json").read_text())[f"pipeline {case}"]
    video = goldens.get(f"{case}.video_latents")
    pipeline: Any = ExVideoPipeline(
        vae=KnownVae(goldens[f"{case}.image_latents"], None if video is None else video / REFERENCE_SCALE),
        image_encoder=KnownEncoder(goldens["clip"]),
        unet=unet,
        scheduler=scheduler(),
        feature_extractor=CLIPImageProcessor(),
        video_scaling_factor=REFERENCE_SCALE,
    )
    arguments = {
        "height": 64,
        "width": 128,
        "num_frames": settings["num_frames"],
        "num_inference_steps": settings["num_inference_steps"],
        "min_guidance_scale": settings["min_cfg_scale"],
        "max_guidance_scale": settings["max_cfg_scale"],
        "contrast": settings["contrast_enhance_scale"],
        "fps": settings["fps"],
        "motion_bucket_id": settings["motion_bucket_id"],
        "noise_aug_strength": 0.02,
        "latents": goldens[f"{case}.noise"][None],
        "output_type": "latent",
    }
    if video is not None:
        arguments |= {"video": [picture()] * len(video), "strength": settings["denoising_strength"]}
    latents: torch.Tensor = quiet(pipeline)(picture(), **{**arguments, **changed}).frames[0]
    return latents


@pytest.mark.parametrize("case", ["t2v", "v2v"])
def test_reference(goldens: dict[str, torch.Tensor], unet: Any, case: str) -> None:
    plain = reference(goldens, unet, case, post_normalize=False, contrast=1.0)
    assert torch.allclose(plain, goldens[f"{case}.latents_pre"], rtol=0, atol=5e-5)
    processed = post_process(plain[None], normalize=True, contrast=1.2)[0]
    assert torch.allclose(processed, goldens[f"{case}.latents_post"], rtol=0, atol=5e-5)


def test_reference_in_one_call_and_controls(goldens: dict[str, torch.Tensor], unet: Any) -> None:
    expected = goldens["v2v.latents_post"]
    assert torch.allclose(reference(goldens, unet, "v2v"), expected, rtol=0, atol=5e-5)
    for changed in ({"min_guidance_scale": 1.0}, {"strength": 0.6}, {"contrast": 1.0}):
        assert (reference(goldens, unet, "v2v", **changed) - expected).abs().max() > 1e-3, changed


def test_post_processing_by_hand() -> None:
    frames = torch.tensor([[0.0, 2.0], [4.0, 8.0]]).view(1, 2, 1, 1, 2)
    # Clip: mean 3.5, variance (12.25 + 2.25 + 0.25 + 20.25) / 3 = 35 / 3. Each frame becomes -+ sqrt(1/2) of its own.
    away = (35 / 3 / 2) ** 0.5
    expected = torch.tensor([[3.5 - away, 3.5 + away]] * 2).view(1, 2, 1, 1, 2)
    assert torch.allclose(post_process(frames, normalize=True, contrast=1.0), expected)
    assert torch.allclose(post_process(frames, normalize=True, contrast=1.2), expected * 1.2)
    assert torch.equal(post_process(frames, normalize=False, contrast=1.0), frames)
    assert torch.isfinite(post_process(torch.ones(1, 2, 1, 1, 2), normalize=True, contrast=1.0)).all()


def test_sigmas_by_hand() -> None:
    ends = 700 ** (1 / 7), 0.002 ** (1 / 7)
    half = ((ends[0] + ends[1]) / 2) ** 7
    assert sigmas_from(scheduler(), 2, 0.5) == pytest.approx([half, 0.002, 0.0], rel=1e-5)
    whole = scheduler()
    whole.set_timesteps(5)
    assert sigmas_from(scheduler(), 5, 1.0) == pytest.approx(whole.sigmas.tolist(), rel=1e-5)


def extended(**config: Any) -> dict[str, Any]:
    """Components of a tiny pipeline whose UNet's new parameters do something."""
    parts = components()
    model: Any = ExVideoUNetSpatioTemporalConditionModel(**{**UNET, "num_position_frames": ROWS, **config})
    model.load_state_dict(parts["unet"].state_dict(), strict=False)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "temporal_conv" in name:
                tensor.add_(torch.randn(tensor.shape, generator=seeded()) * 0.02)
    return {**parts, "unet": model.eval()}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return quiet(ExVideoPipeline(**extended()))


def test_stock_unet_makes_the_stock_pipelines_clip() -> None:
    parts = components()
    stock: Any = quiet(StableVideoDiffusionPipeline(**parts))
    ours: Any = quiet(ExVideoPipeline(**parts))
    expected = stock(picture(), min_guidance_scale=2.0, max_guidance_scale=2.0, fps=30, generator=seeded(), **SMALL)
    made = ours(picture(), post_normalize=False, generator=seeded(), **SMALL)
    assert torch.equal(made.frames, expected.frames)
    assert not torch.equal(ours(picture(), generator=seeded(), **SMALL).frames, expected.frames)


def test_saved_loaded_and_saved_again(pipeline: Any, tmp_path: Path) -> None:
    made = pipeline(picture(), generator=seeded(), **SMALL).frames
    first = ExVideoPipeline(**pipeline.components, contrast=1.2)
    first.save_pretrained(tmp_path / "once")
    loaded: Any = quiet(DiffusionPipeline.from_pretrained(tmp_path / "once"))
    assert type(loaded) is ExVideoPipeline
    assert loaded.config.contrast == 1.2
    loaded.save_pretrained(tmp_path / "twice")
    again: Any = quiet(ExVideoPipeline.from_pretrained(tmp_path / "twice"))
    assert torch.allclose(again(picture(), contrast=1.0, generator=seeded(), **SMALL).frames, made, atol=1e-4)
    assert not torch.allclose(again(picture(), generator=seeded(), **SMALL).frames, made, atol=1e-2)


def test_as_many_frames_as_the_tables_have_rows(pipeline: Any) -> None:
    settings = {**SMALL, "num_frames": None, "num_inference_steps": 1}
    assert pipeline(picture(), **settings).frames.shape == (1, ROWS, 3, 16, 24)


def test_video_to_video(pipeline: Any) -> None:
    clip = [picture(number) for number in range(5)]
    settings = {**SMALL, "height": 32, "width": 48, "num_frames": None}

    def made(**changed: Any) -> torch.Tensor:
        given = {"video": clip, "strength": 0.3, "generator": seeded(), **settings, **changed}
        frames: torch.Tensor = pipeline(**given).frames
        return frames

    frames = made()
    assert frames.shape == (1, 5, 3, 32, 48)
    assert torch.equal(made(image=clip[0]), frames)
    tensor = torch.from_numpy(np.stack([np.asarray(frame) for frame in clip])).permute(0, 3, 1, 2) / 255
    assert made(video=tensor).shape == frames.shape
    assert not torch.equal(made(video=clip[::-1], image=clip[0]), frames)
    everything = {"image": clip[0], "strength": 1.0, "num_inference_steps": 1}
    assert torch.allclose(made(**everything), made(**everything, video=clip[::-1]), atol=0.05)
    assert made(num_videos_per_prompt=2).shape == (2, 5, 3, 32, 48)


def test_pinned_frames(pipeline: Any) -> None:
    seen: list[torch.Tensor] = []

    def look(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        seen.append(kwargs["latents"].clone())
        return kwargs

    def made(number: int, **more: Any) -> torch.Tensor:
        settings = {**SMALL, "num_inference_steps": 3, "output_type": "latent", "post_normalize": False, **more}
        latents: torch.Tensor = pipeline(
            picture(), pinned_frames={number: picture(7)}, generator=seeded(), callback_on_step_end=look, **settings
        ).frames
        return latents

    noise = torch.randn((1, 4, 4, 8, 12), generator=seeded(3))
    latents = made(3, latents=noise)
    assert len(seen) == 3
    clean = pipeline.vae.encode(pipeline.video_processor.preprocess(picture(7))).latent_dist.mode() * 0.18215
    for step in (0, 1):
        noisy = clean[0] + pipeline.scheduler.sigmas[step + 1] * noise[0, 3]
        assert torch.allclose(seen[step][0, 3], noisy, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(seen[step][0, 2], noisy, rtol=1e-2, atol=1e-2)
    assert not torch.equal(made(2, latents=noise), latents)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"height": 18}, "height is 18 pixels; this model makes multiples of 4 from 8 on. Ask for 16 or 20"),
        ({"width": 4}, "width is 4 pixels; this model makes multiples of 4 from 8 on. Ask for 8$"),
        ({"num_frames": ROWS + 1}, "num_frames is 13, and this model's position tables have 12 rows"),
        ({"num_frames": 1}, "needs two at least"),
        ({"image": None}, "there is no image to start from"),
        ({"video": [picture()] * 3}, "num_frames is 4, and the video has 3"),
        ({"video": [picture()] * 4, "strength": 0.0}, "strength is 0.0"),
        ({"pinned_frames": {4: picture()}}, "frame 4 is pinned, and the clip has frames 0 to 3"),
        ({"decode_overlap": 16}, "chunks of 16 frames with an overlap of 16"),
    ],
    ids=["not-whole", "too-small", "too-long", "one-frame", "no-image", "short-video", "strength", "pinned", "chunks"],
)
def test_what_can_not_be_made(pipeline: Any, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(GenerateError, match=words):
        pipeline(**{"image": picture(), **SMALL, **changed})
