"""Files are read back: their frames, colors, rates and settings; and nothing is left of what can't be written."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from modelgrow.pipelines.export import Strip, draw_sheet, enlargement, save_clip
from modelgrow.pipelines.generate import Generated, GenerateOptions, generate
from modelgrow.pipelines.load import load_pipeline
from modelgrow.surgery import OutputError

COLORS = np.array([(230, 40, 40), (40, 185, 70), (45, 95, 245), (245, 220, 50), (242, 242, 240)], dtype=np.uint8)
"""One per frame."""
SETTINGS = {"prompt": "a röd circle \N{BLUE HEART}", "seed": 3, "note": 'quotes " and = and \n a line'}


def plain(height: int, width: int, *, fps: int = 8) -> Generated:
    """Five frames, each of one color."""
    frames = np.broadcast_to(COLORS[:, None, None, :], (5, height, width, 3)).copy()
    return Generated(frames=frames, fps=fps, settings=SETTINGS)


def ffmpeg(path: Path, *output: str) -> tuple[bytes, str]:
    """What ffmpeg writes for a file, and what it says about it."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path), *output, "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stdout, done.stderr.decode()


def read_mp4(path: Path) -> tuple[np.ndarray, str]:
    data, words = ffmpeg(path, "-f", "rawvideo", "-pix_fmt", "rgb24")
    found = re.search(r"Video: h264.* (\d+)x(\d+)", words)
    assert found
    width, height = map(int, found.groups())
    return np.frombuffer(data, np.uint8).reshape(-1, height, width, 3), words


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("size", "shown"),
    [((64, 64), (256, 256)), ((40, 60), (280, 420)), ((257, 300), (258, 300)), ((300, 257), (300, 258))],
    ids=str,
)
def test_mp4(tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]) -> None:
    files = save_clip(plain(*size), tmp_path / "clip.mp4")
    assert [path.name for path in files] == ["clip.mp4", "clip.png", "clip.json"]
    frames, words = read_mp4(files[0])
    assert frames.shape == (5, *shown, 3)
    assert ", 8 fps" in words
    assert "yuv420p(tv, bt709" in words
    assert np.abs(frames.astype(int) - COLORS[:, None, None, :]).max() <= 5


def test_enlarging_keeps_every_pixel_a_square(tmp_path: Path) -> None:
    """A checkerboard in black and white comes back as one: no smoothing, no shift."""
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    frames = np.broadcast_to(board[None, :, :, None], (2, 64, 64, 3)).astype(np.uint8)
    save_clip(Generated(frames=frames, fps=8, settings=SETTINGS), tmp_path / "board.mp4")
    shown, _ = read_mp4(tmp_path / "board.mp4")
    assert enlargement(frames) == 4
    assert np.array_equal(shown[:, 2::4, 2::4] > 127, frames > 127)


def test_settings_inside_the_files(tmp_path: Path) -> None:
    save_clip(plain(64, 64), tmp_path / "clip.mp4")
    save_clip(plain(64, 64), tmp_path / "moving.gif")
    sidecar = json.loads((tmp_path / "clip.json").read_text(encoding="utf-8"))
    assert sidecar == {"file": "clip.mp4", "enlarged": 4, "settings": SETTINGS}
    with Image.open(tmp_path / "clip.png") as sheet:
        assert json.loads(sheet.info["settings"]) == SETTINGS
    with Image.open(tmp_path / "moving.gif") as moving:
        assert json.loads(moving.info["comment"]) == SETTINGS
    metadata = ffmpeg(tmp_path / "clip.mp4", "-f", "ffmetadata")[0].decode()
    comment = re.search(r"^comment=((?:\\.|[^\\\n])*)$", metadata, re.DOTALL | re.MULTILINE)
    assert comment
    assert json.loads(re.sub(r"\\(.)", r"\1", comment[1])) == SETTINGS


def test_what_is_in_the_way_of_the_contact_sheet_is_told(tmp_path: Path) -> None:
    """Somebody's cat.png, say, where cat.mp4 was asked for."""
    (tmp_path / "clip.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"clip\.mp4: clip\.png is to be written beside it and exists already"):
        save_clip(plain(64, 64), tmp_path / "clip.mp4")
    assert listing(tmp_path) == ["clip.png"]


def test_gif(tmp_path: Path) -> None:
    save_clip(plain(64, 48, fps=10), tmp_path / "clip.gif", contact_sheet=False)
    assert listing(tmp_path) == ["clip.gif", "clip.json"]
    with Image.open(tmp_path / "clip.gif") as clip:
        assert clip.size == (288, 384)
        assert clip.info["loop"] == 0
        assert getattr(clip, "n_frames") == 5  # noqa: B009
        for number, color in enumerate(COLORS):
            clip.seek(number)
            assert clip.info["duration"] == 100
            assert np.abs(np.asarray(clip.convert("RGB")).astype(int) - color).max() <= 4


def test_contact_sheet_of_one_clip() -> None:
    """Pictures of 128 x 192 and gaps of 8; a line of text is 16 high. Nine frames: six in a row, then three."""
    frames = np.repeat(np.arange(9, dtype=np.uint8) * 20, 32 * 48 * 3).reshape(9, 32, 48, 3)
    sheet = draw_sheet([Strip(title="", frames=frames)], caption="a red circle")
    assert sheet.size == (8 + 6 * 200, 8 + 16 + 8 + 2 * (128 + 16 + 8))
    pixels = np.asarray(sheet)
    for number in range(9):
        x, y = 8 + number % 6 * 200, 32 + number // 6 * 152
        assert (pixels[y : y + 128, x : x + 192] == number * 20).all()
        label = pixels[y + 128 : y + 144, x : x + 32]
        assert (label < 128).any()
        assert (pixels[y : y + 128, x - 8 : x] > 240).all()
    assert (pixels[8:24] < 128).any()


def test_contact_sheet_of_two_clips() -> None:
    """Frame 0, 2, 4 ... of 17, the second clip below the first: equal frames share a column."""
    base = np.repeat(np.arange(17, dtype=np.uint8) * 10, 64 * 64 * 3).reshape(17, 64, 64, 3)
    sheet = draw_sheet([Strip(title="base", frames=base), Strip(title="grown", frames=base + 1)], caption="")
    band = 16 + 8 + 128 + 16 + 8
    assert sheet.size == (8 + 9 * 136, 16 + 2 * band)
    pixels = np.asarray(sheet)
    for number in range(9):
        for row in (0, 1):
            x, y = 8 + number * 136, 16 + row * band + 24
            assert (pixels[y : y + 128, x : x + 128] == number * 20 + row).all()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((81, 48, 48, 3), (8 + 6 * 152, 16 + 4 * (144 + 24))),  # every fourth: 21 pictures in 4 rows
        ((2, 480, 832, 3), (8 + 2 * 328, 16 + 185 + 24)),
        ((1, 20, 200, 3), (8 + 208, 16 + 20 + 24)),
    ],
    ids=str,
)
def test_contact_sheet_of_other_sizes(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    assert draw_sheet([Strip(title="", frames=np.zeros(shape, np.uint8))], caption="").size == size


def test_long_caption_is_wrapped() -> None:
    strip = Strip(title="", frames=np.zeros((1, 64, 64, 3), np.uint8))
    short, long = draw_sheet([strip], caption="red"), draw_sheet([strip], caption="a red circle moves right " * 4)
    assert short.width == long.width == 144
    assert long.height >= short.height + 4 * 16
    assert (np.asarray(long)[:, -8:] > 240).all()


def test_contact_sheet_alone(tmp_path: Path) -> None:
    assert [path.name for path in save_clip(plain(64, 64), tmp_path / "sheet.png")] == ["sheet.png", "sheet.json"]
    assert json.loads((tmp_path / "sheet.json").read_text(encoding="utf-8")) == {
        "file": "sheet.png",
        "settings": SETTINGS,
    }


def test_sidecar_makes_the_clip_again(tiny_pipeline: Path, tmp_path: Path) -> None:
    options = GenerateOptions(prompt="a red circle", num_frames=5, height=32, width=32, num_inference_steps=2, seed=11)
    first = generate(load_pipeline(tiny_pipeline, device="cpu"), options)
    save_clip(first, tmp_path / "clip.gif")
    settings = json.loads((tmp_path / "clip.json").read_text(encoding="utf-8"))["settings"]
    pipeline = load_pipeline(settings["model"], device=settings["device"], dtype=settings["dtype"])
    again = generate(pipeline, GenerateOptions.from_settings(settings))
    assert np.array_equal(again.frames, first.frames)
    assert again.settings == settings


@pytest.mark.parametrize("existing", ["clip.mp4", "clip.png", "clip.json"])
def test_nothing_is_overwritten_unless_asked(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        save_clip(plain(64, 64), tmp_path / "clip.mp4")
    assert listing(tmp_path) == [existing]
    assert (tmp_path / existing).read_text() == "precious"
    save_clip(plain(64, 64), tmp_path / "clip.mp4", overwrite=True)
    assert listing(tmp_path) == ["clip.json", "clip.mp4", "clip.png"]
    assert (tmp_path / existing).read_bytes() != b"precious"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("clip.avi", "can't write .avi; choose .mp4, .gif, .png"),
        ("clip", "can't write a file without suffix"),
        ("file/clip.mp4", "nothing can be written in"),
        ("folder.mp4", "is a folder"),
    ],
)
def test_targets_that_can_not_be(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OutputError, match=words):
        save_clip(plain(64, 64), tmp_path / name, overwrite=True)
    assert listing(tmp_path) == ["file", "folder.mp4"]


def test_failed_encoder_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tmp_path / "ffmpeg"
    encoder.write_text("#!/bin/sh\ncat >/dev/null\necho no space left >&2\nexit 1\n")
    encoder.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(encoder))
    output = tmp_path / "out"
    output.mkdir()
    with pytest.raises(OutputError, match=r"clip\.mp4: ffmpeg can't write it: no space left"):
        save_clip(plain(64, 64), output / "clip.mp4")
    assert listing(output) == []
