"""Text to video through a picture: made by any text-to-image pipeline, gone from memory before the clip is made."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_files import write_video
from PIL import Image
from tiny_images import save_tiny_hunyuan_dit, save_tiny_sd3
from tiny_svd import save_tiny_exvideo, save_tiny_svd

from modelgrow.pipelines import produce
from modelgrow.pipelines.export import check_target
from modelgrow.pipelines.first_frame import make_first_frame
from modelgrow.pipelines.generate import GenerateOptions
from modelgrow.pipelines.inputs import fit, read_image
from modelgrow.pipelines.load import load_pipeline
from modelgrow.pipelines.produce import Loading, Telling
from modelgrow.surgery import GenerateError, OutputError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT = "a red circle moves right"
SMALL: dict[str, Any] = {"num_frames": 4, "height": 16, "width": 24, "num_inference_steps": 2}
PAINTERS = {"StableDiffusion3Pipeline": save_tiny_sd3, "HunyuanDiTPipeline": save_tiny_hunyuan_dit}
CPU = Loading(device="cpu")


@pytest.fixture(scope="module")
def painters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in PAINTERS.items()}


@pytest.fixture(scope="module")
def svd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_svd(tmp_path_factory.mktemp("svd"))


@pytest.fixture(scope="module")
def exvideo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_exvideo(tmp_path_factory.mktemp("exvideo"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.mark.parametrize("name", PAINTERS)
def test_pictures_of_a_prompt(painters: dict[str, Path], name: str) -> None:
    painter = load_pipeline(painters[name], device="cpu")
    frame = make_first_frame(painter, PROMPT, seed=3)
    assert frame.image.size == (32, 32)
    assert np.asarray(frame.image).std() > 10
    assert json.loads(json.dumps(frame.settings))["pipeline"] == name
    assert frame.settings["num_inference_steps"] == 2
    again = make_first_frame(painter, PROMPT, seed=3)
    assert again.settings == frame.settings
    for change in ({"seed": 4}, {"seed": 3, "negative_prompt": "blue"}):
        other = make_first_frame(painter, PROMPT, **change)
        assert other.settings["image_sha256"] != frame.settings["image_sha256"]


def test_what_makes_no_pictures(svd: Path, tiny_pipeline: Path) -> None:
    for folder in (svd, tiny_pipeline):
        with pytest.raises(GenerateError, match="makes no pictures from a prompt; the first frame needs"):
            make_first_frame(load_pipeline(folder, device="cpu"), PROMPT)


def test_clip_from_a_prompt(
    painters: dict[str, Path], exvideo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same clip as from the picture that is left behind; and one model at a time is in memory."""
    loaded: list[weakref.ref[Any]] = []
    load: Callable[..., Any] = load_pipeline

    def watching(*args: Any, **options: Any) -> Any:
        gc.collect()
        assert all(reference() is None for reference in loaded), "the painter is still there"
        pipeline = load(*args, **options)
        loaded.append(weakref.ref(pipeline.transformer if hasattr(pipeline, "transformer") else pipeline.unet))
        return pipeline

    monkeypatch.setattr(produce, "load_pipeline", watching)
    painter = painters["HunyuanDiTPipeline"]
    made = produce.produce(
        str(exvideo),
        GenerateOptions(prompt=PROMPT, **SMALL),
        tmp_path / "clip.mp4",
        loading=CPU,
        first_frame_model=str(painter),
    )
    assert len(loaded) == 2
    first = tmp_path / "clip.first.png"
    assert [path.name for path in made.files] == ["clip.mp4", "clip.png", "clip.json", "clip.first.png"]
    with Image.open(first) as png:
        assert json.loads(png.info["settings"])["prompt"] == PROMPT
    settings = json.loads((tmp_path / "clip.json").read_text())["settings"]
    assert settings["first_frame"]["prompt"] == PROMPT
    assert settings["first_frame"]["model"] == str(painter)
    assert settings["image"] == str(first)
    monkeypatch.undo()
    options = GenerateOptions.from_settings(settings)
    again = produce.produce(str(exvideo), options, tmp_path / "again.mp4", loading=CPU)
    assert again.clip.settings["frames_sha256"] == settings["frames_sha256"]


def test_second_stage_in_a_go(exvideo: Path, picture: Path, tmp_path: Path) -> None:
    said: list[str] = []
    options = GenerateOptions(image=str(picture), **{**SMALL, "num_inference_steps": 4})
    made = produce.produce(
        str(exvideo),
        options,
        tmp_path / "clip.mp4",
        loading=Loading(device="cpu", low_memory=True),
        second_stage=(32, 48),
        telling=Telling(report=said.append),
    )
    names = [path.name for path in made.files]
    assert names == [f"clip{end}" for end in (".mp4", ".png", ".json", "-32x48.mp4", "-32x48.png", "-32x48.json")]
    assert made.clip.frames.shape == (4, 32, 48, 3)
    second = json.loads((tmp_path / "clip-32x48.json").read_text())["settings"]
    assert (second["strength"], second["num_inference_steps"]) == (0.5, 2)
    first = json.loads((tmp_path / "clip.json").read_text())["settings"]
    assert second["first_stage"] == first
    assert second["video"] == str(tmp_path / "clip.mp4")
    assert [line.split(" peak")[0] for line in said] == ["predicted", "predicted", "actual"] * 2


def test_second_stage_that_can_not_be_is_refused_before_the_first(exvideo: Path, picture: Path, tmp_path: Path) -> None:
    options = GenerateOptions(image=str(picture), **SMALL)
    with pytest.raises(GenerateError, match="width is 50 pixels; this model makes multiples of 4"):
        produce.produce(str(exvideo), options, tmp_path / "clip.mp4", loading=CPU, second_stage=(32, 50))
    assert not (tmp_path / "clip.mp4").exists()


def test_second_stage_from_a_file(exvideo: Path, picture: Path, tmp_path: Path) -> None:
    options = GenerateOptions(image=str(picture), **SMALL)
    produce.produce(str(exvideo), options, tmp_path / "clip.mp4", loading=CPU)
    again = GenerateOptions(video=str(tmp_path / "clip.mp4"), strength=0.5, **{**SMALL, "num_frames": 3})
    made = produce.produce(str(exvideo), again, tmp_path / "again.gif", loading=CPU)
    assert made.clip.frames.shape == (3, 16, 24, 3)
    assert made.clip.settings["strength"] == 0.5


def test_stock_svd_from_a_picture(svd: Path, picture: Path, tmp_path: Path) -> None:
    """Its guidance goes from 1 to what is asked for; the picture may have the name of a contact sheet."""
    options = GenerateOptions(image=str(picture), guidance_scale=2.0, **SMALL)
    made = produce.produce(str(svd), options, tmp_path / "picture.mp4", loading=CPU, overwrite=True)
    assert [path.name for path in made.files] == ["picture.mp4", "picture.json"]
    assert made.clip.settings["max_guidance_scale"] == made.clip.settings["guidance_scale"] == 2.0
    assert made.clip.fps == 7
    assert read_image(picture).size == (20, 30)
    with pytest.raises(OutputError, match="which is never written to"):
        check_target(picture, overwrite=True, inputs=[picture])


@pytest.fixture
def beside_inputs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a picture and a clip."""
    folder = tmp_path_factory.mktemp("inputs")
    Image.new("RGB", (8, 8)).save(folder / "i.png")
    write_video(folder / "v.mp4", num_frames=2)
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("change", [{"image": "nothing.png"}, {"image": __file__}, {"video": "nothing.mp4"}])
def test_inputs_are_read_before_a_model_is_loaded(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(GenerateError, match=r"no such (picture|clip)|no picture"):
        produce.produce("no/model", GenerateOptions(**change), tmp_path / "clip.mp4", loading=CPU)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "ExVideoPipeline starts from a picture; give one with --image or --first-frame-model"),
        ({"prompt": PROMPT}, "takes no prompt; leave --prompt out and give --image .--first-frame-model makes one"),
        ({"image": "nothing.png"}, "nothing.png: no such picture"),
        ({"image": __file__}, "no picture that can be read"),
        ({"video": "nothing.mp4"}, "nothing.mp4: no such clip"),
        ({"video": __file__}, "no clip that can be read"),
        ({"strength": 0.5}, "strength says how far a clip is made anew; give the clip with --video"),
        ({"video": "v.mp4", "strength": 1.5}, "strength is 1.5 .asked for.; it must be above 0 and at most 1"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("beside_inputs")
def test_inputs_that_can_not_be(exvideo: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(GenerateError, match=words):
        produce.produce(str(exvideo), GenerateOptions(**SMALL, **change), tmp_path / "clip.mp4", loading=CPU)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "more", "words"),
    [
        ({"prompt": PROMPT, "image": "i.png"}, {"first_frame_model": "m"}, "not both"),
        ({"image": None}, {"first_frame_model": "m"}, "the first frame is made from a prompt; give one with --prompt"),
        ({"image": "i.png"}, {"second_stage": (32, 32)}, "StableVideoDiffusionPipeline has no second stage"),
        ({"image": "i.png"}, {"loading": Loading(low_memory=True, offload="model")}, "leave --offload out"),
        ({"video": "v.mp4"}, {}, "takes no video; leave --video out and give --image$"),
        ({}, {}, "StableVideoDiffusionPipeline can't run without image; give one with --image"),
        ({"image": "i.png"}, {"enhance": True}, "--enhance writes a prompt out; give one with --prompt"),
    ],
    ids=["both", "no-prompt", "no-second-stage", "offload", "video", "nothing", "enhance"],
)
@pytest.mark.usefixtures("beside_inputs")
def test_wishes_that_do_not_go_together(
    svd: Path, tmp_path: Path, options: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(GenerateError, match=words):
        produce.produce(str(svd), GenerateOptions(**options), tmp_path / "clip.mp4", **{"loading": CPU, **more})


def test_command(
    grow: Callable[..., tuple[int, str, str]], exvideo: Path, painters: dict[str, Path], tmp_path: Path
) -> None:
    size = ("--height", "16", "--width", "24", "--frames", "4", "--steps", "2", "--device", "cpu")
    words = ("--model", str(exvideo), "--first-frame-model", str(painters["StableDiffusion3Pipeline"]))
    code, out, err = grow(
        "generate",
        *words,
        "--prompt",
        PROMPT,
        *size,
        "--second-stage",
        "32x48",
        "--low-memory",
        "-o",
        "c.gif",
        "--json",
    )
    assert code == 0, err
    assert json.loads(out)["files"][:4] == ["c.gif", "c.png", "c.json", "c.first.png"]
    assert json.loads(out)["settings"]["height"] == 32
    assert "predicted peak" in err
    assert "actual peak" in err
    code, _, err = grow("generate", *words, *size)
    assert (code, "nothing to start from" in err) == (2, True)
    code, _, err = grow("generate", *words, "--prompt", PROMPT, "--second-stage", "64")
    assert (code, "'64' is no size" in err) == (2, True)


def test_every_dtype_of_the_picture_is_read(tmp_path: Path) -> None:
    """Palettes, transparency and gray become RGB; a camera's note on how it was held is followed."""
    for mode in ("P", "LA", "L", "RGBA", "1"):
        Image.new(mode, (4, 6)).save(tmp_path / f"{mode}.png")
        assert read_image(tmp_path / f"{mode}.png").mode == "RGB"
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (4, 6)).save(tmp_path / "turned.jpg", exif=turned)
    assert read_image(tmp_path / "turned.jpg").size == (6, 4)
    wide = Image.fromarray(np.repeat(np.arange(12, dtype=np.uint8)[None, :, None] * 20, 4, 0).repeat(3, 2))
    middle = np.asarray(fit(wide, (4, 4)))[0, :, 0]
    assert np.array_equal(middle, np.arange(4, 8) * 20)
    assert fit(wide, None) is wide
