"""Pictures and clips reach diffusers' own image-to-video and video-to-video pipelines, and change what they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline, WanVideoToVideoPipeline
from models import build
from PIL import Image
from tiny_families import COG_VAE, FAMILIES, LTX_VAE, TINY
from tiny_images import save_tiny_sd3
from tiny_pipelines import TRANSFORMER, VAE, text_encoder, tokenizer
from transformers import T5Config, T5EncoderModel

from modelgrow.pipelines.export import write_mp4
from modelgrow.pipelines.generate import GenerateOptions, generate
from modelgrow.pipelines.load import load_pipeline
from modelgrow.pipelines.produce import Loading, Produced, produce
from modelgrow.surgery import GenerateError

TEXT = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, is_encoder_decoder=False)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Two pictures and two clips of 9 frames, 48 x 64."""
    names: dict[str, str] = {}
    for number in (0, 1):
        frames = np.random.default_rng(number).integers(0, 255, (9, 48, 64, 3), dtype=np.uint8)
        Image.fromarray(frames[0]).save(tmp_path / f"{number}.png")
        write_mp4(frames, tmp_path / f"{number}.mp4", fps=8, settings={})
        names |= {f"image{number}": str(tmp_path / f"{number}.png"), f"video{number}": str(tmp_path / f"{number}.mp4")}
    return names


def pipeline_of(class_name: str, transformer: Any, vae: Any, scheduler: str) -> Any:
    torch.manual_seed(0)
    cls = getattr(diffusers, class_name)
    return cls(
        tokenizer=tokenizer(),
        text_encoder=T5EncoderModel(TEXT).eval(),
        vae=vae,
        transformer=transformer,
        scheduler=getattr(diffusers, scheduler)(),
    )


def cogvideox() -> Any:
    row = TINY["cogvideox-2b"]
    config = {**row.tiny, "max_text_seq_length": 226, "in_channels": 8, "out_channels": 4}
    return pipeline_of(
        "CogVideoXImageToVideoPipeline",
        build(row.class_name, config),
        build("AutoencoderKLCogVideoX", COG_VAE, seed=1),
        "CogVideoXDDIMScheduler",
    )


def ltx() -> Any:
    row = TINY["ltx"]
    return pipeline_of(
        "LTXImageToVideoPipeline",
        build(row.class_name, row.tiny),
        build("AutoencoderKLLTXVideo", LTX_VAE, seed=1),
        "FlowMatchEulerDiscreteScheduler",
    )


def wan() -> Any:
    """Wan 2.2's kind, which reads the picture as latents with a mask (one for each frame in a latent), not by CLIP."""
    channels = 4 + 4 + 2  # of the clip, of the picture, of the mask
    return WanImageToVideoPipeline(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=build("AutoencoderKLWan", VAE, seed=1),
        transformer=build("WanTransformer3DModel", {**TRANSFORMER, "in_channels": channels}),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


COG, LTX = (dict(FAMILIES[name].options) for name in ("cogvideox", "ltx"))
WAN = {"num_frames": 9, "height": 32, "width": 48}


@pytest.mark.parametrize(("make", "sizes"), [(cogvideox, COG), (ltx, LTX), (wan, WAN)], ids=["cogvideox", "ltx", "wan"])
def test_image_to_video(make: Any, sizes: dict[str, Any], files: dict[str, str]) -> None:
    pipeline = make()

    def frames(**options: Any) -> np.ndarray:
        return generate(pipeline, GenerateOptions(num_inference_steps=2, **sizes, **options)).frames

    first = frames(prompt="a red circle", image=files["image0"])
    assert first.shape == (*sizes.values(), 3)
    assert np.array_equal(frames(prompt="a red circle", image=files["image0"]), first)
    assert not np.array_equal(frames(prompt="a red circle", image=files["image1"]), first)
    assert not np.array_equal(frames(prompt="a blue square", image=files["image0"]), first)
    with pytest.raises(GenerateError, match="can't run without prompt; give one with --prompt"):
        frames(image=files["image0"])
    with pytest.raises(GenerateError, match="can't run without image; give one with --image"):
        frames(prompt="a red circle")


def test_a_prompt_for_picture_and_clip(tmp_path: Path) -> None:
    """A model that reads both gets the prompt too."""
    ltx().save_pretrained(tmp_path / "ltx")
    painter = save_tiny_sd3(tmp_path / "sd3")

    def made(prompt: str, name: str, **more: Any) -> Produced:
        options = GenerateOptions(prompt=prompt, num_inference_steps=2, **LTX, **more)
        model = None if "image" in more else str(painter)
        return produce(
            str(tmp_path / "ltx"),
            options,
            tmp_path / name,
            loading=Loading(device="cpu"),
            first_frame_model=model,
        )

    first = made("a red circle", "clip.gif")
    assert first.clip.settings["prompt"] == first.clip.settings["first_frame"]["prompt"] == "a red circle"
    picture = str(tmp_path / "clip.first.png")
    assert np.array_equal(made("a red circle", "same.gif", image=picture).clip.frames, first.clip.frames)
    assert not np.array_equal(made("a blue square", "other.gif", image=picture).clip.frames, first.clip.frames)


def test_wan_video_to_video(tiny_pipeline: Path, files: dict[str, str]) -> None:
    parts = load_pipeline(tiny_pipeline, device="cpu").components
    # This pipeline takes a VAE's scale from its number of levels, as that of Wan 2.1 has it.
    vae = {**VAE, "patch_size": None, "in_channels": 3, "out_channels": 3, "scale_factor_spatial": 2}
    names = ("tokenizer", "text_encoder", "transformer", "scheduler")
    pipeline: Any = WanVideoToVideoPipeline(
        **{name: parts[name] for name in names}, vae=build("AutoencoderKLWan", vae, seed=1)
    )
    settings: dict[str, Any] = {"prompt": "a red circle", "height": 32, "width": 48, "num_inference_steps": 4}

    def made(**options: Any) -> Any:
        return generate(pipeline, GenerateOptions(**settings, **options))

    first = made(video=files["video0"], strength=0.5)
    assert first.frames.shape == (9, 32, 48, 3)
    assert first.settings["video"] == files["video0"]
    assert not np.array_equal(made(video=files["video1"], strength=0.5).frames, first.frames)
    assert not np.array_equal(made(video=files["video0"], strength=0.9).frames, first.frames)
    assert made(video=files["video0"], num_frames=5).frames.shape == (5, 32, 48, 3)
    with pytest.raises(GenerateError, match="can't run without video; give one with --video"):
        made()
    with pytest.raises(GenerateError, match="takes no image; leave --image out and give --video"):
        made(video=files["video0"], image=files["image0"])
