"""Videos in folders: what is found, what is read of it, what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from clip_files import CODECS, gray, write_captioned, write_video
from PIL import Image

from modelgrow.surgery import DataError, OutputError
from modelgrow.train.data import ClipSource, choose_buckets, contact_sheet, open_clips, report
from modelgrow.train.data.fit import crop_box, fit


def levels(source: ClipSource, key: str, num_frames: int) -> np.ndarray:
    """The mean of the right quarter of every frame, away from the edge in the middle."""
    (clip,) = (clip for clip in source.clips if clip.key == key)
    frames = source.read(clip, num_frames=num_frames, height=clip.height, width=clip.width)
    assert frames.shape == (num_frames, clip.height, clip.width, 3)
    assert frames.dtype == np.uint8
    means: np.ndarray = frames[:, :, -clip.width // 4 :].mean(axis=(1, 2, 3))
    return means


@pytest.mark.parametrize("suffix", CODECS)
def test_every_container_is_counted_and_read_from_its_start(suffix: str, tmp_path: Path) -> None:
    write_captioned(tmp_path / f"clip{suffix}", "a gray wall", num_frames=11)
    source = open_clips(str(tmp_path))
    (clip,) = source.clips
    assert (clip.num_frames, clip.height, clip.width, clip.fps) == (11, 32, 48, 10.0)
    assert (clip.caption, clip.long_caption, clip.path) == ("a gray wall", None, tmp_path / f"clip{suffix}")
    expected = [gray(number) for number in range(9)]
    # Neighbors differ by 16 levels; rgb8, the GIF's palette, has steps of 36 in red and green.
    np.testing.assert_allclose(levels(source, clip.key, 9), expected, atol=19 if suffix == ".gif" else 3)


def test_names_captions_and_order(tmp_path: Path) -> None:
    """Below the folder too, in order; hidden files are none; captions come on one line."""
    write_captioned(tmp_path / "b" / "zwei Wörter 视频.mp4", "\ufeff a\nlong   day\r\n")
    write_captioned(tmp_path / "a 1.mp4", "first")
    (tmp_path / "._a 1.mp4").write_bytes(b"macOS")
    (tmp_path / "b" / "again").symlink_to(tmp_path, target_is_directory=True)
    source = open_clips(str(tmp_path))
    assert [(clip.key, clip.caption) for clip in source.clips] == [
        ("a 1.mp4", "first"),
        ("b/zwei Wörter 视频.mp4", "a long day"),
    ]
    assert source.refused == ()


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def test_what_is_broken_is_refused_with_the_reason(tmp_path: Path) -> None:
    write_captioned(tmp_path / "good.mp4", "good")
    cut(write_captioned(tmp_path / "cut.mp4", "cut"), 0.5)
    write_video(tmp_path / "half.mp4", num_frames=200, faststart=True)
    (tmp_path / "half.txt").write_text("half")
    cut(tmp_path / "half.mp4", 0.7)
    write_video(tmp_path / "silent.mp4")
    write_captioned(tmp_path / "blank.mp4", " \n")
    write_captioned(tmp_path / "latin.mp4", "x").with_suffix(".txt").write_bytes(b"caf\xe9")
    for name, content in (("empty", ""), ("text", "not a video\n" * 9), ("list", "#EXTM3U\n#EXTINF:2,\ngood.mp4\n")):
        (tmp_path / f"{name}.mp4").write_text(content)
        (tmp_path / f"{name}.txt").write_text(name)
    source = open_clips(str(tmp_path))
    assert [clip.key for clip in source.clips] == ["good.mp4"]
    half = (tmp_path / "half.mp4").stat().st_size
    reasons = {refused.name.removesuffix(".mp4"): refused.reason for refused in source.refused}
    assert reasons.pop("half").startswith(f"is cut off: has {half} bytes, its frames go on to byte ")
    unreadable = "can't be decoded: Invalid data found when processing input"
    assert reasons == {
        "blank": "has no caption",
        "cut": unreadable,
        "empty": "is empty",
        "latin": "its caption is not UTF-8 text (byte 3)",
        "list": unreadable,
        "silent": "has no caption",
        "text": unreadable,
    }


def test_a_playlist_opens_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ffmpeg would: it goes by the bytes, not by the name. Our list of formats keeps it from doing so."""
    write_captioned(tmp_path / "good.mp4", "good")
    write_captioned(tmp_path / "list.mp4", "a list").write_text("ffconcat version 1.0\nfile good.mp4\n")
    monkeypatch.chdir(tmp_path)
    with open("list.mp4", "rb") as file, av.open(file) as container:
        assert container.streams.video[0].width == 48
    (refused,) = open_clips(str(tmp_path)).refused
    assert (refused.name, refused.reason[:16]) == ("list.mp4", "can't be decoded")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match=r"none of its 1 clips can be used; the first: sound.mp4: has no video in it"):
        open_clips(str(tmp_path), captions=False)


@pytest.mark.parametrize("spec", ["./nothing", "-/nothing", "../nothing", "nothing", "a/b/c"])
def test_nothing_of_that_name(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are not looked for on the Hub."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no such folder or file, no Hub id"):
        open_clips(spec)


def test_captions_are_not_needed_by_models_that_read_none(tmp_path: Path) -> None:
    write_video(tmp_path / "silent.mp4")
    with pytest.raises(DataError, match=r"none of its 1 clips can be used; the first: silent\.mp4: has no caption; a"):
        open_clips(str(tmp_path))
    (clip,) = open_clips(str(tmp_path), captions=False).clips
    assert clip.caption == ""


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no videos there"):
        open_clips(str(tmp_path))
    with pytest.raises(DataError, match="no such folder or file"):
        open_clips(str(tmp_path / "missing"))
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(DataError, match="expected a folder, a list"):
        open_clips(str(tmp_path / "clip.mp4"))


def test_a_clip_that_breaks_later_is_an_error_with_its_name(tmp_path: Path) -> None:
    """The count comes from the container; a flaw further on shows when it is decoded."""
    path = write_captioned(tmp_path / "flawed.mp4", "flawed", num_frames=12)
    source = open_clips(str(tmp_path))
    with pytest.raises(DataError, match=r"flawed\.mp4: has 12 frames, 13 are wanted"):
        source.read(source.clips[0], num_frames=13, height=32, width=48)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : start + 4000] = bytes(len(data[start : start + 4000]))
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"flawed\.mp4: "):
        source.read(source.clips[0], num_frames=12, height=32, width=48)


def test_a_phones_upright_clip_is_upright(tmp_path: Path) -> None:
    """The picture lies on its side, and a matrix in the file says how to turn it. ffmpeg's own turn is the control."""
    plain = write_video(tmp_path / "source" / "plain.mp4", num_frames=2)
    turned = tmp_path / "turned.mp4"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error"]
    subprocess.run([*ffmpeg, "-display_rotation", "90", "-i", plain, "-c", "copy", turned], check=True)
    raw = [*ffmpeg, "-i", turned, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    expected = np.frombuffer(subprocess.run(raw, check=True, capture_output=True).stdout, dtype=np.uint8)
    source = open_clips(str(tmp_path), captions=False)
    clip = source.clips[0]
    assert (clip.key, clip.height, clip.width) == ("turned.mp4", 48, 32)
    frames = source.read(clip, num_frames=2, height=48, width=32)
    np.testing.assert_allclose(frames.astype(int), expected.reshape(2, 48, 32, 3), atol=2)
    assert frames[0, :20].mean() > frames[0, -20:].mean() + 25  # the dark left half is now below


def test_the_fingerprint_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_captioned(first / "a.mp4", "a wall")
    write_captioned(first / "b.mp4", "a door", num_frames=13)
    shutil.copytree(first, second)
    found = {open_clips(str(first)).fingerprint, open_clips(str(second)).fingerprint}
    assert len(found) == 1
    for last in (b"1", b"2"):  # a box that says nothing: as many bytes, another end
        data = (first / "b.mp4").read_bytes()
        (second / "b.mp4").write_bytes(data + (17).to_bytes(4, "big") + b"free" + bytes(8) + last)
        found.add(open_clips(str(second)).fingerprint)
    assert len(found) == 3
    (second / "a.txt").write_text("a window")
    found.add(open_clips(str(second)).fingerprint)
    assert len(found) == 4


def test_crops_by_hand() -> None:
    assert crop_box(100, 200, to_height=10, to_width=10) == (50, 0, 150, 100)
    assert crop_box(200, 100, to_height=10, to_width=20) == (0, 75, 100, 125)
    assert crop_box(48, 64, to_height=480, to_width=640) == (0, 0, 64, 48)
    frame = np.arange(4 * 8 * 3, dtype=np.uint8).reshape(4, 8, 3)
    np.testing.assert_array_equal(fit(frame, 4, 4), frame[:, 2:6])
    np.testing.assert_array_equal(fit(frame, 4, 8), frame)


def test_shrinking_is_antialiased() -> None:
    """Stripes of one pixel become gray; nearest and plain bicubic sampling would keep some."""
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(fit(stripes, 16, 16)[4:-4, 4:-4].astype(int)) < 6
    assert abs(fit(stripes, 16, 16).mean() - 127.5) < 2


def test_the_report_by_hand(tmp_path: Path) -> None:
    write_captioned(tmp_path / "a.mp4", "one two three", num_frames=12)
    write_captioned(tmp_path / "b.mp4", "one", num_frames=20, height=64, width=64)
    write_captioned(tmp_path / "c.mp4", "one two", num_frames=4)
    (tmp_path / "d.mp4").touch()
    source = open_clips(str(tmp_path), captions=False)
    found = report(
        source, choose_buckets(source, num_frames=9, height=32, width=32, temporal_factor=4, spatial_factor=8)
    )
    written = json.loads(json.dumps(found.to_json()))
    assert written.pop("name") == str(tmp_path)
    assert written.pop("fingerprint") == source.fingerprint
    assert written == {
        "clips": 2,
        "seconds": 3.6,
        "num_frames": {"least": 4, "median": 12, "most": 20},
        "height": {"least": 32, "median": 32, "most": 64},
        "width": {"least": 48, "median": 48, "most": 64},
        "caption_words": {"least": 1, "median": 2, "most": 3},
        "long_captions": 0,
        "frames_used": 18 / 32,
        "controls": [],
        "buckets": [{"num_frames": 9, "height": 32, "width": 32, "clips": 2}],
        "refused": [
            {"name": "d.mp4", "reason": "is empty"},
            {"name": "c.mp4", "reason": "has 4 frames, 9 are needed"},
        ],
    }


def test_the_contact_sheet_shows_first_middle_and_last(tmp_path: Path) -> None:
    folder, sheet = tmp_path / "clips", tmp_path / "sheet.png"
    write_captioned(folder / "a.mp4", "a wall", height=96, width=96)
    write_captioned(folder / "b.mp4", "a door", height=96, width=96)
    source = open_clips(str(folder))
    buckets = choose_buckets(source, num_frames=9, height=96, width=96, temporal_factor=4, spatial_factor=8)
    assert contact_sheet(source, sheet, buckets=buckets) == ("a.mp4", "b.mp4")
    with Image.open(sheet) as picture:
        shown = np.asarray(picture.convert("RGB")).astype(int)
    row = (shown.shape[0] - 8) // 2
    for column, frame in enumerate((0, 4, 8)):
        left = 8 + column * (96 + 8)
        np.testing.assert_allclose(shown[row - 90 : row - 6, left + 60 : left + 90], gray(frame), atol=3)
    with pytest.raises(OutputError, match="exists already"):
        contact_sheet(source, sheet, buckets=buckets)
    assert contact_sheet(source, sheet, count=1, overwrite=True) == ("a.mp4",)
