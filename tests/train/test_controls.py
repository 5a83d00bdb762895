"""Control clips in a data set: where they lie, which are read, and what is refused for want of them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import numpy as np
import pytest
import torch
from clip_files import Listed, clip, gray, write_captioned, write_shard, write_video

from modelgrow.surgery import DataError
from modelgrow.train.cache import build_cache
from modelgrow.train.data import ClipSource, Refused, choose_buckets, contact_sheet, open_clips, report
from modelgrow.train.data.controls import check_rate
from modelgrow.train.data.media import Media
from modelgrow.train.data.short import ShortCaptions

NEEDED = {"pose_video": True}
POSSIBLE = {"control_video": False, "mask_video": False}


def level(source: ClipSource, name: str, number: int = 0) -> list[int]:
    """The right half of every frame of a control clip, of a source's clip, rounded to tens."""
    clip = source.clips[number]
    frames = source.read_control(clip, name, num_frames=3, height=clip.height, width=clip.width)
    assert frames.shape == (3, clip.height, clip.width, 3)
    return [round(float(mean)) for mean in frames[:, :, -clip.width // 4 :].mean(axis=(1, 2, 3))]


def near(found: list[int]) -> bool:
    return np.allclose(found, [gray(0), gray(1), gray(2)], atol=3)


def test_beside_a_clip_in_a_folder(tmp_path: Path) -> None:
    """Any video suffix; below the folder too; they are never clips of their own, whatever is read."""
    write_captioned(tmp_path / "a.mp4", "a", num_frames=5)
    write_video(tmp_path / "a.pose_video.webm", num_frames=4)
    write_captioned(tmp_path / "below" / "b.c.mkv", "b")
    write_video(tmp_path / "below" / "b.c.pose_video.mp4")
    write_captioned(tmp_path / "pose_video.mp4", "a clip with such a name")
    write_video(tmp_path / "lost.face_video.mp4")
    plain, source = open_clips(str(tmp_path)), open_clips(str(tmp_path), controls=NEEDED)
    lost = Refused(name="lost.face_video.mp4", reason="is a control clip, and there is no video lost beside it")
    assert [clip.key for clip in plain.clips] == ["a.mp4", "pose_video.mp4", "below/b.c.mkv"]
    assert plain.refused == (lost,)
    assert {clip.controls for clip in plain.clips} == {()}
    assert plain.clips[0].num_frames == 5
    assert [(clip.key, clip.controls, clip.num_frames) for clip in source.clips] == [
        ("a.mp4", ("pose_video",), 4),
        ("below/b.c.mkv", ("pose_video",), 12),
    ]
    found, lacking = source.refused
    assert (found, lacking.name) == (lost, "pose_video.mp4")
    assert lacking.reason.startswith("has no pose_video, which this model reads; name it in a column")
    assert plain.found_controls == source.found_controls == {"pose_video": 2}
    assert near(level(source, "pose_video", 0))
    assert near(level(source, "pose_video", 1))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "json"])
def test_columns_of_a_list(kind: str, tmp_path: Path) -> None:
    """Relative to the list; an empty cell is none; what is named and not there is a fault where it is read."""
    for name in ("videos/a.mp4", "videos/b.mp4", "poses/a.mov"):
        write_video(tmp_path / name)
    rows = [
        {"file_name": "videos/a.mp4", "text": "a", "pose_video": "poses/a.mov", "face_video": ""},
        {"file_name": "videos/b.mp4", "text": "b", "pose_video": "poses/b.mov", "face_video": ""},
    ]
    path = tmp_path / f"metadata.{kind}"
    if kind == "csv":
        lines = io.StringIO(newline="")
        writer = csv.DictWriter(lines, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(lines.getvalue())
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    plain, source = open_clips(str(path)), open_clips(str(tmp_path), controls=NEEDED)
    assert [clip.key for clip in plain.clips] == ["videos/a.mp4", "videos/b.mp4"]
    assert plain.refused == ()
    assert [clip.key for clip in source.clips] == ["videos/a.mp4"]
    (refused,) = source.refused
    assert refused.reason.startswith("its pose_video: 'poses/b.mov': there is no such file (relative paths begin at")
    assert source.found_controls == {"pose_video": 2}
    assert near(level(source, "pose_video"))
    (tmp_path / "two.json").write_text(json.dumps([{**rows[0], "pose_video": ["poses/a.mov"]}]))
    with pytest.raises(DataError, match=r"videos/a.mp4: its pose_video: is list, expected a file's name"):
        open_clips(str(tmp_path / "two.json"), controls=NEEDED)


def test_members_of_a_shard(tmp_path: Path) -> None:
    video = write_video(tmp_path / "any.mp4").read_bytes()
    members = {"a.mp4": video, "a.txt": b"a", "a.pose_video.mp4": video, "b.mask_video.mp4": video}
    source = open_clips(str(write_shard(tmp_path / "clips.tar", members)), controls=NEEDED)
    assert [(clip.key, clip.controls) for clip in source.clips] == [("clips.tar/a.mp4", ("pose_video",))]
    assert source.refused == (
        Refused(name="clips.tar/b.mask_video", reason="is a control clip, and there is no video b beside it"),
    )
    assert near(level(source, "pose_video"))


def test_a_folder_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_captioned(tmp_path / "cache" / "a.mp4", "a")
    write_video(tmp_path / "cache" / "a.pose_video.mp4")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert open_clips("somebody/clips", controls=NEEDED).clips[0].controls == ("pose_video",)


def test_drawn_clips_have_none() -> None:
    source = open_clips("shapes:1:2", controls=POSSIBLE)
    assert (source.found_controls, source.clips[0].controls) == ({}, ())
    with pytest.raises(DataError, match="100-0: is drawn, and has no mask_video"):
        source.read_control(source.clips[0], "mask_video", num_frames=1, height=32, width=32)
    with pytest.raises(DataError, match=r"shapes: drawn clips have no control clips, and this model reads pose_video"):
        open_clips("shapes", controls={**POSSIBLE, **NEEDED})


def test_what_one_clip_has_all_must_have(tmp_path: Path) -> None:
    """Of what a model can do without; and what no clip has is not asked for."""
    for name in "ab":
        write_captioned(tmp_path / f"{name}.mp4", name)
    assert len(open_clips(str(tmp_path), controls=POSSIBLE).clips) == 2
    write_video(tmp_path / "a.control_video.mp4")
    write_video(tmp_path / "b.pose_video.mp4")
    source = open_clips(str(tmp_path), controls=POSSIBLE)
    assert [(clip.key, clip.controls) for clip in source.clips] == [("a.mp4", ("control_video",))]
    assert source.refused == (Refused(name="b.mp4", reason="has no control_video, and others have"),)
    with pytest.raises(DataError, match=r"a.mp4: has no mask_video that is read"):
        source.read_control(source.clips[0], "mask_video", num_frames=1, height=32, width=32)
    with pytest.raises(DataError, match=r"a.mp4: 12 frames of its control_video are read, 13 are wanted"):
        source.read_control(source.clips[0], "control_video", num_frames=13, height=32, width=32)


def test_a_control_clip_that_does_not_fit(tmp_path: Path) -> None:
    for name in "abcd":
        write_captioned(tmp_path / f"{name}.mp4", name)
    write_video(tmp_path / "a.pose_video.mp4", num_frames=5)
    write_video(tmp_path / "b.pose_video.mp4", fps=12)
    (tmp_path / "c.pose_video.mp4").write_bytes(b"no video")
    (tmp_path / "d.pose_video.mp4").touch()
    source = open_clips(str(tmp_path), controls=NEEDED)
    assert [(clip.key, clip.num_frames, clip.shortest) for clip in source.clips] == [("a.mp4", 5, "pose_video")]
    reasons = {refused.name: refused.reason for refused in source.refused}
    assert reasons["b.mp4"].startswith("its pose_video runs at 12 frames per second, the clip itself at 10;")
    assert reasons["c.mp4"].startswith("its pose_video can't be decoded: ")
    assert reasons["d.mp4"] == "its pose_video is empty"
    with pytest.raises(DataError, match="every clip is too short"):
        choose_buckets(source, num_frames=9, temporal_factor=4, spatial_factor=8)
    write_video(tmp_path / "d.pose_video.mp4")
    source = open_clips(str(tmp_path), controls=NEEDED)
    (short,) = choose_buckets(source, num_frames=9, temporal_factor=4, spatial_factor=8).refused
    assert short == Refused(name="a.mp4", reason="its pose_video has 5 frames, 9 are needed")


def test_rates_that_differ_by_rounding_are_the_same() -> None:
    for rate, clips in ((29.97, 30.0), (30.0, 29.97), (None, 24.0), (24.0, None)):
        check_rate("pose_video", rate, clips)
    for rate, clips in ((23.976, 24.3), (24.3, 23.976), (0.5, 1.0)):
        with pytest.raises(DataError, match=f"its pose_video runs at {rate:g} frames per second, the clip itself at"):
            check_rate("pose_video", rate, clips)


def test_the_fingerprint_is_of_what_is_read(tmp_path: Path) -> None:
    """Data without control clips, or whose model reads none, keep the one that they had before there were any."""
    path = write_captioned(tmp_path / "a.mp4", "a wall")
    digest = Media(path=path, nbytes=path.stat().st_size).digest()
    before = hashlib.sha256(json.dumps([["a.mp4", "a wall", None, digest]]).encode()).hexdigest()
    assert open_clips(str(tmp_path), controls=POSSIBLE).fingerprint == before
    write_video(tmp_path / "a.control_video.mp4")
    assert open_clips(str(tmp_path)).fingerprint == before
    one = open_clips(str(tmp_path), controls=POSSIBLE).fingerprint
    write_video(tmp_path / "a.control_video.mp4", num_frames=13)
    other = open_clips(str(tmp_path), controls=POSSIBLE).fingerprint
    (tmp_path / "a.control_video.mp4").rename(tmp_path / "a.mask_video.mp4")
    assert len({before, one, other, open_clips(str(tmp_path), controls=POSSIBLE).fingerprint}) == 4


def test_short_captions_keep_them(tmp_path: Path) -> None:
    write_captioned(tmp_path / "a.mp4", "a")
    write_video(tmp_path / "a.pose_video.mp4")
    source = ShortCaptions(open_clips(str(tmp_path), controls=NEEDED))
    assert source.clips[0].controls == ("pose_video",)
    assert source.found_controls == {"pose_video": 1}
    assert near(level(source, "pose_video"))


def test_the_report_and_its_pictures(tmp_path: Path) -> None:
    for name in "ab":
        write_captioned(tmp_path / f"{name}.mp4", name)
    write_video(tmp_path / "a.control_video.mp4")
    write_video(tmp_path / "a.pose_video.mp4")
    write_video(tmp_path / "b.pose_video.mp4")
    sheets = []
    for wanted in ({}, POSSIBLE):
        source = open_clips(str(tmp_path), controls=wanted)
        buckets = choose_buckets(source, num_frames=9, temporal_factor=4, spatial_factor=8)
        found = report(source, buckets)
        contact_sheet(source, tmp_path / f"{len(wanted)}.png", buckets=buckets, count=1)
        sheets.append((tmp_path / f"{len(wanted)}.png").read_bytes())
    assert [control.sentence for control in found.controls] == [
        "control_video lies beside 1 clip, and is read",
        "pose_video lies beside 2 clips, and is not read by this model",
    ]
    assert found.to_json()["controls"][0] == {"name": "control_video", "clips": 1, "read": True}
    assert sheets[0] != sheets[1]


class Reading:
    """An encoder that keeps one pixel of the control clips that it is given."""

    fingerprint = "reading 1"
    control_sizes: ClassVar[dict[str, tuple[int, int] | None]] = {"face_video": (8, 16), "pose_video": None}

    def encode_video(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(dim=(3, 4), keepdim=True)

    def encode_text(self, captions: list[str]) -> dict[str, torch.Tensor]:
        return {"states": torch.ones(len(captions), 2)}

    def encode_conditions(
        self, pixels: torch.Tensor, rates: list[float | None], controls: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        return {f"{name}_latents": control[:, :1, :, :, :1] for name, control in controls.items()}


def test_they_are_encoded_beside_their_clips(tmp_path: Path) -> None:
    """At the clip's size or at one of their own; a clip whose control clip breaks in the middle is left out."""
    names = ("face_video", "pose_video")
    clips = tuple(clip(key, height=32, width=48, controls=names) for key in ("a", "b", "c"))
    source = Listed(clips=clips, broken_controls=("b",))
    buckets = choose_buckets(source, num_frames=9, temporal_factor=4, spatial_factor=8)
    cache = build_cache(source, buckets, Reading(), tmp_path, batch_size=2)
    assert cache.keys == ("a", "c")
    assert cache.refused == (Refused(name="b", reason="its face_video is damaged"),)
    example = cache.example(1)
    assert example["text.face_video_latents"].shape == (1, 9, 8, 1)
    assert example["text.pose_video_latents"].shape == (1, 9, 32, 1)
    for place, name in enumerate(names):  # clip c has the level 2, its control clips 102 and 103
        expected = torch.tensor((102 + place) / 127.5 - 1)
        torch.testing.assert_close(example[f"text.{name}_latents"][0, 0, 0, 0], expected)
