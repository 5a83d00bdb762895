"""Control clips reach diffusers' own pipelines as files, under the names that training data give them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXFunControlPipeline
from models import build
from PIL import Image, ImageOps
from tiny_cosmos import with_torchvision
from tiny_cosmos_transfer import cosmos_transfer
from tiny_easyanimate import control, inpaint
from tiny_families import COG_VAE, TINY
from tiny_from_images import SIZES, tiny
from tiny_pipelines import t5, tokenizer
from tiny_vace import vace
from tiny_wan_animate import FACE, wan_animate

from modelgrow.pipelines.controls import NAMES, control_arguments, parameters_for
from modelgrow.pipelines.export import write_mp4
from modelgrow.pipelines.generate import Generated, GenerateOptions, generate
from modelgrow.pipelines.inputs import read_video
from modelgrow.pipelines.load import load_pipeline
from modelgrow.pipelines.produce import produce
from modelgrow.surgery import GenerateError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT = "a red circle moves right"
SIZE: dict[str, Any] = {"height": 32, "width": 48, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Clips of blocks, 12 frames, 10 a second; the mask's are black and white, or nearly. And two pictures."""
    folder = tmp_path_factory.mktemp("clips")
    for number, name in enumerate(NAMES):
        blocks = np.random.default_rng(number).integers(256, size=(12, 6, 8, 3), dtype=np.uint8)
        if name == "mask_video":
            blocks[:] = (blocks[..., :1] > 127) * 250
        write_mp4(blocks.repeat(8, axis=1).repeat(8, axis=2), folder / f"{name}.mp4", fps=10, settings={})
        Image.fromarray(blocks[0].repeat(8, axis=0).repeat(8, axis=1)).save(
            folder / ("image.png" if number else "last.png")
        )
    return {path.stem: str(path) for path in folder.iterdir()}


def made(pipeline: Any, files: dict[str, str], names: str, **options: Any) -> Generated:
    controls = {name: files[name] for name in names.split()}
    return generate(pipeline, GenerateOptions(prompt=PROMPT, controls=controls, **{**SIZE, **options}))


def pictures(path: str, size: tuple[int, int]) -> list[Image.Image]:
    return [ImageOps.fit(frame, size, method=Image.Resampling.LANCZOS) for frame in read_video(Path(path))]


def test_vace(files: dict[str, str]) -> None:
    """12 frames of the clips, and 13 of the VAE's: the last stands still, and what comes of it is dropped."""
    pipeline = vace()
    clip = made(pipeline, files, "control_video mask_video")
    shown = {name: pictures(files[f"{name}_video"], (48, 32)) for name in ("control", "mask")}
    generator = torch.Generator().manual_seed(0)
    direct = pipeline(
        PROMPT,
        video=[*shown["control"], shown["control"][-1]],
        mask=[*shown["mask"], shown["mask"][-1]],
        num_frames=13,
        generator=generator,
        **SIZE,
    )
    assert np.array_equal(clip.frames, (direct.frames[0][:12].clip(0, 1) * 255).round().astype(np.uint8))
    assert clip.fps == 10, "the control clip's own"
    settings = json.loads(json.dumps(clip.settings))
    assert settings["controls"] == {name: files[name] for name in ("control_video", "mask_video")}
    assert (settings["num_frames"], settings["notes"]) == (12, [])
    again = generate(pipeline, GenerateOptions.from_settings(settings))
    assert again.settings["frames_sha256"] == settings["frames_sha256"]
    few = made(pipeline, files, "control_video", num_frames=5, fps=12)
    assert (few.frames.shape[0], few.fps) == (5, 12)
    assert not np.array_equal(few.frames, made(pipeline, files, "control_video mask_video", num_frames=5).frames)
    by_video = generate(pipeline, GenerateOptions(prompt=PROMPT, video=files["control_video"], num_frames=5, **SIZE))
    assert np.array_equal(by_video.frames, few.frames)


def test_wan_animate(files: dict[str, str]) -> None:
    pipeline = wan_animate()
    options = {"image": files["image"]}
    clip = made(pipeline, files, "pose_video face_video", **options)
    assert clip.frames.shape == (12, 32, 48, 3)
    direct = pipeline(
        ImageOps.fit(Image.open(files["image"]), (48, 32), method=Image.Resampling.LANCZOS),
        pictures(files["pose_video"], (48, 32)),
        pictures(files["face_video"], (FACE, FACE)),
        prompt=PROMPT,
        segment_frame_length=13,
        generator=torch.Generator().manual_seed(0),
        **SIZE,
    )
    assert np.array_equal(clip.frames, (direct.frames[0].clip(0, 1) * 255).round().astype(np.uint8))
    replaced = made(pipeline, files, "pose_video face_video background_video mask_video", **options)
    assert replaced.settings["mode"] == "replace"
    assert not np.array_equal(replaced.frames, clip.frames)
    assert made(pipeline, files, "pose_video face_video", num_frames=5, **options).frames.shape[0] == 5
    faces = made(pipeline, {**files, "face_video": files["mask_video"]}, "pose_video face_video", **options)
    assert not np.array_equal(faces.frames, clip.frames)
    with pytest.raises(GenerateError, match=r"can't run without face_video; give one with --control face_video=FILE"):
        made(pipeline, files, "pose_video", **options)
    with pytest.raises(GenerateError, match="can't run without image; give one with --image"):
        made(pipeline, files, "pose_video face_video")


def test_cosmos_transfer(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with_torchvision(monkeypatch)
    pipeline = cosmos_transfer()
    assert parameters_for(pipeline) == {"control_video": "controls"}
    clip, other = (
        made(pipeline, {"control_video": files[name]}, "control_video", height=32, width=32, num_frames=5)
        for name in ("control_video", "pose_video")
    )
    assert clip.frames.shape == (5, 32, 32, 3)
    assert clip.settings["controls"] == {"control_video": files["control_video"]}
    assert not np.array_equal(clip.frames, other.frames)
    with pytest.raises(GenerateError, match=r"can't run without control_video; give one with --control control_video="):
        generate(pipeline, GenerateOptions(prompt=PROMPT))


def test_easyanimate_control(files: dict[str, str]) -> None:
    """Its pipeline in diffusers 0.42 can't run as it is; afterwards it is as it was."""
    pipeline = control()
    size: dict[str, Any] = {"height": 32, "width": 32, "num_frames": 5}
    clip = made(pipeline, files, "control_video", **size)
    assert clip.frames.shape == (5, 32, 32, 3)
    assert not np.array_equal(
        made(pipeline, {"control_video": files["pose_video"]}, "control_video", **size).frames, clip.frames
    )
    assert not {"encode_prompt", "decode_latents"} & set(vars(pipeline))
    plain = generate(pipeline, GenerateOptions(prompt=PROMPT, num_inference_steps=2, **size))
    assert not np.array_equal(plain.frames, clip.frames)


def test_easyanimate_mask(files: dict[str, str]) -> None:
    """White is made anew, black is kept; what is neither after coding is the nearer of them."""
    pipeline = inpaint(add_noise_in_inpaint_model=False)
    clips = control_arguments(pipeline, {"mask_video": read_video(Path(files["mask_video"]))})
    assert clips["mask_video"].shape == (1, 1, 12, 288, 384)
    assert set(clips["mask_video"].unique().tolist()) == {0.0, 255.0}
    size: dict[str, Any] = {"height": 32, "width": 32, "num_frames": 5}
    clip = made(pipeline, files, "mask_video", video=files["control_video"], **size)
    other = made(pipeline, {"mask_video": files["pose_video"]}, "mask_video", video=files["control_video"], **size)
    assert not np.array_equal(clip.frames, other.frames)
    with pytest.raises(
        GenerateError, match=r"keeps what is black in mask_video of another clip; give that one with --video"
    ):
        made(pipeline, files, "mask_video")


def test_a_pipeline_that_takes_its_length_from_them(files: dict[str, str]) -> None:
    row = TINY["cogvideox-2b"]
    pipeline = CogVideoXFunControlPipeline(
        tokenizer=tokenizer(),
        text_encoder=t5(),
        vae=build("AutoencoderKLCogVideoX", COG_VAE, seed=1),
        transformer=build(
            row.class_name, {**row.tiny, "max_text_seq_length": 226, "in_channels": 8, "out_channels": 4}
        ),
        scheduler=CogVideoXDDIMScheduler(),
    )
    clip = made(pipeline, files, "control_video")
    assert clip.frames.shape == (12, 32, 48, 3), "13 are made, and one is dropped"
    assert made(pipeline, files, "control_video", num_frames=10).frames.shape[0] == 10
    other = made(pipeline, {"control_video": files["pose_video"]}, "control_video")
    assert not np.array_equal(clip.frames, other.frames)
    with pytest.raises(GenerateError, match=r"can't run without control_video; give one with --control control_video="):
        generate(pipeline, GenerateOptions(prompt=PROMPT))


def test_a_last_picture(files: dict[str, str], tmp_path: Path) -> None:
    pipeline = tiny("wan-flf2v")
    sizes = dict(zip(("num_frames", "height", "width"), SIZES["wan-flf2v"], strict=True))
    options: dict[str, Any] = {"prompt": PROMPT, "image": files["image"], "num_inference_steps": 2, **sizes}
    clip = generate(pipeline, GenerateOptions(last_image=files["last"], **options))
    assert clip.settings["last_image"] == files["last"]
    assert not np.array_equal(
        generate(pipeline, GenerateOptions(last_image=files["image"], **options)).frames, clip.frames
    )
    direct = pipeline(
        prompt=PROMPT,
        image=ImageOps.fit(
            Image.open(files["image"]), (sizes["width"], sizes["height"]), method=Image.Resampling.LANCZOS
        ),
        last_image=ImageOps.fit(
            Image.open(files["last"]), (sizes["width"], sizes["height"]), method=Image.Resampling.LANCZOS
        ),
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        **sizes,
    )
    assert np.array_equal(clip.frames, (direct.frames[0].clip(0, 1) * 255).round().astype(np.uint8))
    with pytest.raises(GenerateError, match="can't run without last_image; give one with --last-image"):
        generate(pipeline, GenerateOptions(**options))
    with pytest.raises(
        GenerateError, match="--last-image is what a clip ends with; give what it starts from with --image"
    ):
        generate(pipeline, GenerateOptions(**{**options, "image": None, "last_image": files["last"]}))
    with pytest.raises(
        GenerateError, match="WanVACEPipeline takes no last_image; leave --last-image out and give --video"
    ):
        generate(vace(), GenerateOptions(prompt=PROMPT, last_image=files["last"]))


def test_what_is_refused(files: dict[str, str], tiny_pipeline: Path, tmp_path: Path) -> None:
    reader = vace()
    plain = load_pipeline(tiny_pipeline, device="cpu")
    for pipeline, names, options, words in (
        (plain, "pose_video", {}, "WanPipeline takes no control clips; leave --control pose_video out"),
        (reader, "pose_video", {}, "takes no 'pose_video'; its control clips are control_video and mask_video"),
        (
            reader,
            "mask_video",
            {},
            "keeps what is black in mask_video .* give that one with --control control_video=FILE",
        ),
        (
            reader,
            "control_video",
            {"video": files["pose_video"]},
            "--video and --control control_video are the same for",
        ),
        (
            reader,
            "control_video",
            {"num_frames": 21},
            r"has 12 frames, and 21 are to be made by it; .* --frames 12, or",
        ),
    ):
        with pytest.raises(GenerateError, match=words):
            made(pipeline, files, names, **options)
    reader.save_pretrained(tmp_path / "vace")
    asked = GenerateOptions(prompt=PROMPT, controls={"control_video": files["control_video"]}, **SIZE)
    with pytest.raises(GenerateError, match="WanVACEPipeline has no second stage: it takes no video to make anew"):
        produce(str(tmp_path / "vace"), asked, tmp_path / "c.gif", second_stage=(64, 96))
    (tmp_path / "no.mp4").write_bytes(b"no clip")
    for name, words in (("missing.mp4", "no such clip"), ("no.mp4", "no clip that can be read")):
        with pytest.raises(GenerateError, match=words):
            made(reader, {"control_video": str(tmp_path / name)}, "control_video")


def test_command(
    grow: Callable[..., tuple[int, str, str]], files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    vace().save_pretrained("vace")
    controls = [f"--control={name}={files[name]}" for name in ("control_video", "mask_video")]
    options = ("--height=32", "--width=48", "--steps=2", "--device=cpu", "--frames=5")
    code, out, err = grow(
        "generate", "--model", "vace", "--prompt", PROMPT, *controls, *options, "-o", "c.gif", "--json"
    )
    assert code == 0, err
    settings = json.loads(Path("c.json").read_text())["settings"]
    assert settings["controls"] == json.loads(out)["settings"]["controls"]
    assert settings["controls"]["mask_video"] == files["mask_video"]
    code, _, err = grow("generate", "--model", "vace", "--prompt", PROMPT, "--control", "pose")
    assert (code, "'pose' is no control clip; expected NAME=FILE" in " ".join(err.split())) == (2, True)
    code, _, err = grow("generate", "--model", "vace", "--prompt", PROMPT, *controls, controls[0])
    assert (code, "--control control_video is given twice" in " ".join(err.split())) == (2, True)
    code, _, err = grow(
        "generate", "--model", "vace", "--prompt", PROMPT, *controls, *options, "-o", files["mask_video"], "--overwrite"
    )
    assert code == 1
    assert "which is never written to" in " ".join(err.split())
