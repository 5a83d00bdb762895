"""OpenSoraPipeline from end to end, on tiny random weights."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from models import build
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_open_sora import SPATIAL, open_sora, save_open_sora
from tiny_pipelines import load_aligned

from modelgrow.pipelines import OpenSoraPipeline
from modelgrow.surgery import GenerateError

SMALL: dict[str, Any] = {"height": 32, "width": 40, "num_frames": 17, "num_inference_steps": 2}
RED = Image.new("RGB", (60, 40), (220, 30, 10))


def seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in numbers]


def latents(pipeline: Any, prompt: Any = "a red circle", **options: Any) -> torch.Tensor:
    made: torch.Tensor = pipeline(
        prompt, **{**SMALL, "generator": seeds(0)[0], "output_type": "latent", **options}
    ).frames
    return made


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return open_sora()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_sora(tmp_path_factory.mktemp("open_sora") / "tiny")


def test_a_folder_loads_and_saves_the_same(folder: Path, tmp_path: Path) -> None:
    first = load_aligned(folder)
    assert type(first) is OpenSoraPipeline
    first.save_pretrained(tmp_path / "again")
    second = load_aligned(tmp_path / "again")
    assert torch.equal(latents(first), latents(second))
    for name in ("vae/diffusion_pytorch_model.safetensors", "transformer/diffusion_pytorch_model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_output_types_and_sizes(pipeline: Any) -> None:
    frames = pipeline("a red circle", **SMALL, generator=seeds(0)[0], output_type="np").frames
    assert frames.shape == (1, 17, 32, 40, 3)
    assert latents(pipeline).shape == (1, 4, 5, 4, 5)
    # 43 is no multiple of 8: the last pixels are left out.
    odd = pipeline("a red circle", **{**SMALL, "width": 43, "num_frames": 7}, generator=seeds(0)[0]).frames
    assert [len(odd), len(odd[0]), odd[0][0].size] == [1, 7, (40, 32)]
    picture = pipeline("a red circle", **{**SMALL, "num_frames": 1}, generator=seeds(0)[0], output_type="pt").frames
    assert picture.shape == (1, 1, 3, 32, 40)


def test_sizes_by_name_reach_the_model(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    stock = pipeline.transformer.forward

    def forward(**kwargs: Any) -> Any:
        seen.update({name: kwargs[name] for name in ("fps", "height", "width", "hidden_states")})
        return stock(**kwargs)

    monkeypatch.setattr(pipeline.transformer, "forward", forward)
    named = {"height": None, "width": None, "resolution": "144p", "aspect_ratio": "1:1"}
    latents(pipeline, **named, num_frames="2s", num_inference_steps=1, guidance_scale=1.0)
    assert seen["hidden_states"].shape == (1, 4, 15, 24, 24)
    assert [float(seen[name][0]) for name in ("fps", "height", "width")] == [24.0, 192.0, 192.0]
    latents(pipeline, num_frames=1, fps=8)
    assert seen["fps"].tolist() == [120.0, 120.0]


def test_a_batch_is_its_parts(pipeline: Any) -> None:
    prompts = ["a red circle moves right", "circle"]
    both = latents(pipeline, prompts, generator=seeds(1, 2))
    for number, prompt in enumerate(prompts):
        alone = latents(pipeline, prompt, generator=seeds(1 + number))
        torch.testing.assert_close(both[number : number + 1], alone, rtol=0, atol=2e-4)
    assert (both[0] - both[1]).abs().max() > 0.1
    twice = latents(pipeline, prompts, num_videos_per_prompt=2, generator=seeds(1, 3, 2, 4))
    torch.testing.assert_close(twice[::2], both, rtol=0, atol=2e-4)


@torch.no_grad()
def test_prompts_scores_and_what_stands_against_them(pipeline: Any) -> None:
    plain = latents(pipeline)
    assert torch.equal(plain, latents(pipeline, "A  RED (circle)"))
    assert not torch.equal(plain, latents(pipeline, "A  RED (circle)", clean_caption=False))
    assert torch.equal(plain, latents(pipeline, "a red circle aesthetic score: 6.5.", aesthetic_score=None))
    for changed in ({"negative_prompt": "blue"}, {"guidance_scale": 3.0}, {"guidance_scale": 1.0}):
        assert not torch.equal(plain, latents(pipeline, **changed))
    text = "a red circle aesthetic score: 6.5."
    states, mask, null, null_mask = pipeline.encode_prompt(text)
    given = {"prompt_embeds": states, "prompt_attention_mask": mask}
    assert torch.equal(plain, latents(pipeline, None, **given))
    given |= {"negative_prompt_embeds": null, "negative_prompt_attention_mask": null_mask}
    assert torch.equal(plain, latents(pipeline, None, **given))


@torch.no_grad()
def test_a_picture_begins_the_clip(pipeline: Any) -> None:
    encoded = pipeline.encode_video(pipeline.video_processor.preprocess(RED, 32, 40, resize_mode="crop")[:, :, None])
    begun = latents(pipeline, image=RED)
    assert torch.equal(begun[:, :, :1], encoded)
    assert not torch.equal(begun[:, :, 1:2], encoded)
    # The last place is that of the last chunk's beginning, see `find_nearest_point`.
    ended = latents(pipeline, last_image=RED, num_frames=34)
    assert torch.equal(ended[:, :, 5:6], encoded)
    assert not torch.equal(ended[:, :, :1], encoded)
    anywhere = latents(pipeline, last_image=RED, num_frames=34, align=None)
    assert torch.equal(anywhere[:, :, 9:], encoded)
    edited = latents(pipeline, image=RED, edit_ratio=0.5)
    assert not torch.equal(edited[:, :, :1], encoded)
    placed = latents(pipeline, image=RED, mask_strategy="0,0,0,3,1", align=None)
    assert torch.equal(placed[:, :, 3:4], encoded)
    both = latents(pipeline, ["a red circle", "blue"], image=[RED, RED.rotate(90)], generator=seeds(1, 2))
    assert torch.equal(both[:1, :, :1], encoded)


@torch.no_grad()
def test_a_clip_goes_on_or_is_edited(pipeline: Any) -> None:
    generator = np.random.default_rng(0)
    clip = [Image.fromarray(generator.integers(0, 255, (32, 40, 3), dtype=np.uint8)) for _ in range(34)]
    pixels = (
        torch.stack([torch.from_numpy(np.asarray(frame).copy()) for frame in clip]).movedim(-1, 0)[None] / 127.5 - 1
    )
    encoded = pipeline.encode_video(pixels)
    longer = latents(pipeline, video=clip, num_frames=34)
    torch.testing.assert_close(longer[:, :, :5], encoded[:, :, 5:], rtol=0, atol=1e-5)
    kept = latents(pipeline, video=clip, num_frames=34, edit_ratio=1e-4)
    torch.testing.assert_close(kept, encoded, rtol=0, atol=1e-5)
    assert (latents(pipeline, video=clip, num_frames=34, edit_ratio=0.9) - encoded).abs().max() > 0.1
    array = latents(pipeline, video=np.stack([np.asarray(frame) / np.float32(255) for frame in clip]), num_frames=34)
    torch.testing.assert_close(array, longer, rtol=0, atol=1e-4)


@torch.no_grad()
def test_loops_go_on_where_the_last_one_ended(pipeline: Any) -> None:
    options = {"num_frames": 34, "loop": 2}
    prompt = "|0|a red circle|1|a blue square"
    joined = latents(pipeline, prompt, **options)
    assert joined.shape[2] == 15
    generator = seeds(0)[0]
    first = latents(pipeline, "a red circle", num_frames=34, generator=generator)
    assert torch.equal(joined[:, :, :10], first)
    clip = pipeline.vae.decode(first, num_frames=34).sample
    frames = list(((clip[0].movedim(0, 1) + 1) / 2)[:])
    second = latents(pipeline, "a blue square", num_frames=34, generator=generator, video=torch.stack(frames))
    torch.testing.assert_close(joined[:, :, 10:], second[:, :, 5:], rtol=0, atol=1e-3)
    shown = pipeline(prompt, **{**SMALL, **options}, generator=seeds(0)[0], output_type="np").frames
    assert shown.shape[1] == 51
    np.testing.assert_allclose(shown[0, :34], (clip[0].movedim(0, -1) / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)


def test_callbacks_hear_every_step_and_may_change_it(pipeline: Any) -> None:
    heard = []

    def callback(pipe: Any, step: int, timestep: torch.Tensor, values: dict[str, Any]) -> dict[str, Any]:
        heard.append((step, pipe.num_timesteps, float(timestep)))
        return {"latents": torch.zeros_like(values["latents"])}

    made = latents(pipeline, callback_on_step_end=callback, loop=2, num_frames=34)
    assert [step for step, _, _ in heard] == [0, 1, 2, 3]
    assert {total for _, total, _ in heard} == {4}
    assert heard[0][2] > heard[1][2]
    assert not made.any()


def test_version_1_samples_by_diffusion(tmp_path: Path) -> None:
    pipeline = open_sora(version="1.0")
    options = {**SMALL, "num_frames": 4, "width": 32}
    made = latents(pipeline, **options)
    assert made.shape == (1, 4, 4, 4, 4)
    assert torch.equal(made, latents(pipeline, **options))
    assert torch.equal(made, latents(pipeline, **options, motion_score=3.0))
    assert torch.equal(made, latents(pipeline, **options, guidance_channels=3))
    assert not torch.equal(made, latents(pipeline, **options, guidance_channels=4))
    with pytest.raises(GenerateError, match="DDPMScheduler can't keep frames"):
        latents(pipeline, **options, image=RED)
    pipeline.save_pretrained(tmp_path / "one")
    assert torch.equal(made, latents(load_aligned(tmp_path / "one"), **options))


WRONG: list[tuple[str, Callable[[Any], Any]]] = [
    ("give height and width, or", lambda p: p("a", **SMALL, resolution="240p")),
    ("give both or neither", lambda p: p("a", height=32)),
    ("resolution is '111p'", lambda p: p("a", resolution="111p")),
    ("make no latent", lambda p: p("a", height=4, width=32)),
    ("num_frames is '3s'", lambda p: p("a", **{**SMALL, "num_frames": "3s"})),
    ("exactly one", lambda p: p(**SMALL)),
    ("exactly one", lambda p: p("a", prompt_embeds=torch.zeros(1, 12, 16))),
    ("prompt is 3", lambda p: p(3, **SMALL)),
    ("need a prompt_attention_mask", lambda p: p(prompt_embeds=torch.zeros(1, 12, 16), **SMALL)),
    ("edit_ratio is 2", lambda p: p("a", **SMALL, image=RED, edit_ratio=2)),
    ("loop is 0", lambda p: p("a", **SMALL, loop=0)),
    ("no whole number of", lambda p: p("a", **SMALL, loop=2, condition_frame_length=3)),
    ("each loop must make something new", lambda p: p("a", **SMALL, loop=2)),
    ("image: 2 for 1 prompts", lambda p: p("a", **SMALL, image=[RED, RED])),
    ("3 mask strategies for 1 prompts", lambda p: p("a", **SMALL, mask_strategy=["0", "0", "0"])),
    ("names reference 1", lambda p: p("a", **SMALL, image=RED, mask_strategy="0,1")),
    ("latents have shape", lambda p: p("a", **SMALL, latents=torch.zeros(1, 4, 1, 1, 1))),
    ("2 negative prompts for 1", lambda p: p("a", negative_prompt=["b", "c"], **SMALL)),
]


@pytest.mark.parametrize(("message", "call"), WRONG, ids=[f"{n}-{m[:20]}" for n, (m, _) in enumerate(WRONG)])
def test_mistakes_are_explained(pipeline: Any, message: str, call: Callable[[Any], Any]) -> None:
    with pytest.raises(GenerateError, match=re.escape(message)):
        call(pipeline)


def publish(folder: Path, model: Any, **keys: Any) -> Path:
    """As hpcai-tech publishes a model: transformers' file names, no class in the config."""
    folder.mkdir()
    config = {name: value for name, value in model.config.items() if not name.startswith("_")}
    (folder / "config.json").write_text(json.dumps({**keys, **config}))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_pipeline_of_published_pieces(pipeline: Any, tmp_path: Path) -> None:
    transformer = publish(tmp_path / "stdit", pipeline.transformer, model_type="STDiT3", enable_flash_attn=True)
    for name in ("vae", "text_encoder", "tokenizer"):
        getattr(pipeline, name).save_pretrained(tmp_path / "t5" if name == "tokenizer" else tmp_path / name)
    pipeline.text_encoder.save_pretrained(tmp_path / "t5")
    built = OpenSoraPipeline.from_published(
        str(transformer), vae=str(tmp_path / "vae"), text_encoder=str(tmp_path / "t5"), dtype=torch.float32
    )
    built.set_progress_bar_config(disable=True)
    torch.testing.assert_close(latents(built), latents(pipeline), rtol=0, atol=1e-5)
    built.save_pretrained(tmp_path / "whole")
    torch.testing.assert_close(latents(load_aligned(tmp_path / "whole")), latents(pipeline), rtol=0, atol=1e-5)


def test_published_folders_stand_in_a_pipeline_as_they_are(grow: Any, folder: Path, tmp_path: Path) -> None:
    stock, mixed = load_aligned(folder), tmp_path / "mixed"
    shutil.copytree(folder, mixed, ignore=shutil.ignore_patterns("transformer", "vae"))
    publish(mixed / "transformer", stock.transformer, model_type="STDiT3")
    publish(mixed / "vae", stock.vae, model_type="VideoAutoencoderPipeline")
    assert torch.equal(latents(load_aligned(mixed)), latents(stock))
    assert grow("expand", str(mixed), "--mode", "prefix", "-o", "grown")[0] == 0
    assert torch.equal(latents(load_aligned(tmp_path / "grown")), latents(stock))


def test_version_1_of_published_pieces(tmp_path: Path) -> None:
    one = open_sora(version="1.0")
    flat = build("AutoencoderKL", SPATIAL, seed=1)
    flat.save_pretrained(tmp_path / "flat")
    built = OpenSoraPipeline.from_published(
        one.transformer, vae=str(tmp_path / "flat"), text_encoder=one.text_encoder, tokenizer=one.tokenizer
    )
    assert isinstance(built.scheduler, DDPMScheduler)
    assert built.vae.temporal_vae is None
    assert load_file(tmp_path / "flat" / "diffusion_pytorch_model.safetensors").keys() == flat.state_dict().keys()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(GenerateError, match="no STDiT"):
        OpenSoraPipeline.from_published(str(tmp_path / "other"), text_encoder=one.text_encoder, tokenizer=one.tokenizer)
    with pytest.raises(GenerateError, match="needs a tokenizer"):
        OpenSoraPipeline.from_published(one.transformer, text_encoder=one.text_encoder)


def test_grow_generate_and_expand(grow: Any, folder: Path) -> None:
    small = ["--height", "32", "--width", "40", "--frames", "17", "--steps", "2", "--json"]
    code, out, err = grow("generate", "--model", str(folder), "--prompt", "a red circle", *small, "-o", "a.gif")
    assert code == 0, err
    made = json.loads(out)["settings"]
    assert [made[name] for name in ("pipeline", "num_frames", "height", "width", "fps")] == [
        "OpenSoraPipeline",
        *(17, 32, 40, 24),
    ]
    assert grow("expand", str(folder), "--mode", "insert", "-o", "grown")[0] == 0
    code, out, err = grow("generate", "--model", "grown", "--prompt", "a red circle", *small, "-o", "b.gif")
    assert code == 0, err
    assert json.loads(out)["settings"]["frames_sha256"] == made["frames_sha256"]
    code, _, err = grow("generate", "--model", str(folder), "--prompt", "a", "--height", "4", "--width", "4")
    assert code == 1
    assert "make no latent" in err
