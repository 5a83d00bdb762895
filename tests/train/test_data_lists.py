"""Lists, shards, the Hub and the small world: other ways to name clips."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from clip_files import write_captioned, write_shard, write_video

from modelgrow.examples.shapes import make_clip
from modelgrow.examples.shapes.source import SEED
from modelgrow.examples.shapes.training.settings import MEASURE_SEED, TRAIN_SEED, VALIDATION_SEED
from modelgrow.surgery import DataError
from modelgrow.train.data import ClipSource, open_clips


def captions(source: ClipSource) -> list[tuple[str, str, str | None]]:
    return [(clip.key, clip.caption, clip.long_caption) for clip in source.clips]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_metadata_jsonl(tmp_path: Path) -> None:
    """It decides alone: what it does not name is no part of the data, and a sidecar is not looked at."""
    write_video(tmp_path / "videos" / "a b.mp4")
    write_captioned(tmp_path / "other.mp4", "not named")
    elsewhere = write_video(tmp_path.parent / f"{tmp_path.name} elsewhere" / "c.mp4")
    path = write_lines(
        tmp_path / "metadata.jsonl",
        [
            {"file_name": "videos/a b.mp4", "text": "a\nwall", "long_text": "a wall, gray\u2028and wide"},
            {"file_name": "videos/a b.mp4", "text": "the same wall"},
            {"file_name": str(elsewhere), "text": "elsewhere"},
        ],
    )
    expected = [
        ("videos/a b.mp4", "a wall", "a wall, gray and wide"),
        ("videos/a b.mp4#2", "the same wall", None),
        (elsewhere.as_posix(), "elsewhere", None),
    ]
    assert captions(open_clips(str(tmp_path))) == expected
    assert captions(open_clips(str(path))) == expected


def test_rows_that_make_no_sense_are_refused_by_line(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    good = json.dumps({"file_name": "a.mp4", "text": "good"})
    lines = [
        good,
        "",
        "{",
        "[1]",
        '{"text": "no file"}',
        '{"file_name": "missing.mp4", "text": "x"}',
        '{"file_name": "a.mp4", "text": 5}',
        '{"file_name": "a\\u0000b.mp4", "text": "x"}',
        '{"file_name": "' + "a" * 5000 + '.mp4", "text": "x"}',
        '{"file_name": "a.mp4"}',
    ]
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join(lines))
    source = open_clips(str(path))
    assert captions(source) == [("a.mp4", "good", None)]
    reasons = {refused.name: refused.reason for refused in source.refused}
    assert reasons.pop("list.jsonl, line 3").startswith("not JSON: ")
    assert reasons.pop("list.jsonl, line 8").startswith("'a\\x00b.mp4': ")
    assert reasons.pop("list.jsonl, line 9").startswith("'aaaa")
    assert reasons == {
        "list.jsonl, line 4": "is list, expected an object with a video and a caption",
        "list.jsonl, line 5": "names no video: expected one of the columns file_name, path, video, file",
        "list.jsonl, line 6": f"'missing.mp4': there is no such file (relative paths begin at {tmp_path})",
        "list.jsonl, line 7": "its caption is int, expected text",
        "a.mp4#2": "has no caption",
    }


def test_open_soras_csv(tmp_path: Path) -> None:
    """Its numbers are not trusted: the file is asked."""
    write_video(tmp_path / "a.mp4", num_frames=12, height=32, width=48)
    path = tmp_path / "train.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "text", "num_frames", "height", "width", "aspect_ratio", "fps", "resolution"])
        rows.writerow([tmp_path / "a.mp4", 'a wall, "gray"\nand wide', 999, 720, 1280, 0.5625, 24, 921600])
    (clip,) = open_clips(str(path)).clips
    assert (clip.caption, clip.num_frames, clip.height, clip.width) == ('a wall, "gray" and wide', 12, 32, 48)


def test_exvideos_json_has_no_captions(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4")
    (tmp_path / "metadata.json").write_text(json.dumps([{"path": "videos/a.mp4"}]))
    assert captions(open_clips(str(tmp_path), captions=False)) == [("videos/a.mp4", "", None)]
    with pytest.raises(DataError, match="has no caption"):
        open_clips(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"clip,text\na.mp4,x\n", "its first line must name the columns"),
        ("a.csv", b"", "found nothing"),
        ("a.csv", b'path,text\na.mp4,"' + b"x" * 200_000 + b'"\n', "not CSV after line 1: field larger"),
        ("a.json", b'{"path": "a.mp4"}', "expected a JSON array of objects, one per video; found dict"),
        ("a.json", b"[", "not JSON"),
        ("a.jsonl", b"\xff\xfe", "not UTF-8 text"),
        ("a.tar", gzip.compress(bytes(1024), mtime=0), "not an uncompressed .tar archive"),
    ],
)
def test_a_list_that_is_none(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_clips(str(tmp_path / name))


def test_two_lists_in_a_folder_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").touch()
    (tmp_path / "metadata.jsonl").touch()
    with pytest.raises(DataError, match=r"has metadata\.jsonl and metadata\.csv; name the one to use"):
        open_clips(str(tmp_path))


def test_webdataset_shards(tmp_path: Path) -> None:
    """Decoded from their place in the archive, as they would be from a file."""
    loose = write_captioned(tmp_path / "loose.mp4", "loose", num_frames=10)
    video, other = loose.read_bytes(), write_video(tmp_path.parent / "other.webm").read_bytes()
    members = {
        "0001.mp4": video,
        "0001.txt": b"first\n",
        "0002.json": b'{"caption": "second", "long_text": "the second"}',
        "sub/0003.webm": other,
        "sub/0003.txt": b"third",
        "sub/0003.json": b'{"text": "not this one"}',
        "0004.mp4": video,
        "0005.mp4": video[:100],
        "0005.txt": b"broken",
        "0002.mp4": video,
        "0006.mp4": video,
        "0006.json": b"{",
        "0007.txt": b"alone",
    }
    shard = write_shard(tmp_path / "shards" / "00.tar", members)
    source = open_clips(str(tmp_path))
    assert captions(source) == [
        ("loose.mp4", "loose", None),
        ("shards/00.tar/0001.mp4", "first", None),
        ("shards/00.tar/0002.mp4", "second", "the second"),
        ("shards/00.tar/sub/0003.webm", "third", None),
    ]
    assert {refused.name: refused.reason.split(":")[0] for refused in source.refused} == {
        "shards/00.tar/0004.mp4": "has no caption",
        "shards/00.tar/0005.mp4": "can't be decoded",
        "shards/00.tar/0006.mp4": "its .json can't be read",
    }
    size = {"num_frames": 10, "height": 32, "width": 48}
    plain, first, _, third = (source.read(clip, **size) for clip in source.clips)
    np.testing.assert_array_equal(first, plain)
    assert not np.array_equal(third, plain)
    assert [clip.key for clip in open_clips(str(shard)).clips] == [
        "00.tar/0001.mp4",
        "00.tar/0002.mp4",
        "00.tar/sub/0003.webm",
    ]


def test_a_shard_that_is_cut_off_gives_what_it_holds(tmp_path: Path) -> None:
    video = write_video(tmp_path / "source" / "a.mp4", faststart=True).read_bytes()
    whole = {"1.mp4": video, "1.txt": b"one", "2.txt": b"two", "2.mp4": video}
    shard = write_shard(tmp_path / "cut.tar", whole)
    data = shard.read_bytes()
    shard.write_bytes(data[: data.rindex(b"2.mp4") + 512 + len(video) - 9])
    source = open_clips(str(shard))
    assert captions(source) == [("cut.tar/1.mp4", "one", None)]
    assert [(refused.name, refused.reason) for refused in source.refused] == [
        ("cut.tar", "unexpected end of data; only what is before that is used"),
        ("cut.tar/2.mp4", f"is cut off: has {len(video) - 9} bytes, its frames go on to byte {len(video)}"),
    ]


def test_a_hub_id_is_downloaded_unless_a_folder_has_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The download itself is huggingface_hub's; what is asked of it, and what becomes of the folder, is ours."""
    asked: list[tuple[str, Any, Any]] = []
    write_captioned(tmp_path / "cache" / "a.mp4", "from the Hub")
    write_captioned(tmp_path / "somebody" / "local" / "a.mp4", "from the disk")

    def snapshot_download(repo_id: str, *, repo_type: str, allow_patterns: list[str]) -> str:
        asked.append((repo_id, repo_type, {"*.mp4", "*.txt", "*.tar", "metadata.jsonl"} <= set(allow_patterns)))
        if repo_id == "somebody/missing":
            raise huggingface_hub.errors.HFValidationError("no such data set\nadvice")
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    assert open_clips("somebody/clips").clips[0].caption == "from the Hub"
    assert open_clips("somebody/local").clips[0].caption == "from the disk"
    assert asked == [("somebody/clips", "dataset", True)]
    with pytest.raises(DataError, match=r"somebody/missing: .* can't be had from the Hub: no such data set$"):
        open_clips("somebody/missing")
    with pytest.raises(DataError, match="no such folder or file"):
        open_clips("../somebody")
    assert len(asked) == 2


def test_without_a_network_the_hub_says_so() -> None:
    with pytest.raises(
        DataError, match="clips: not a folder here, and it can't be had from the Hub: the cache lacks it"
    ):
        open_clips("somebody/clips")


def test_the_small_world() -> None:
    source = open_clips("shapes:2-3:6", num_frames=9, height=32, width=48)
    assert len(source.clips) == 6
    assert SEED not in {TRAIN_SEED, VALIDATION_SEED, *range(MEASURE_SEED, MEASURE_SEED + 100)}
    numbers = set()
    for index, clip in enumerate(source.clips):
        drawn = make_clip(seed=SEED, index=index, num_objects=(2, 3), num_frames=9, height=32, width=48)
        assert (clip.key, clip.caption, clip.long_caption) == (f"{SEED}-{index}", drawn.caption, drawn.detailed_caption)
        np.testing.assert_array_equal(source.read(clip, num_frames=9, height=32, width=48), drawn.frames)
        np.testing.assert_array_equal(source.read(clip, num_frames=5, height=32, width=32), drawn.frames[:5, :, 8:40])
        numbers.add(len(drawn.scene.objects))
        with pytest.raises(DataError, match="was made for 9 frames, 10 are wanted"):
            source.read(clip, num_frames=10, height=32, width=32)
    assert numbers == {2, 3}
    assert source.read(source.clips[0], num_frames=1, height=50, width=20).shape == (1, 50, 20, 3)
    assert source.fingerprint == open_clips("shapes:2-3:6", num_frames=9, height=32, width=48).fingerprint
    assert source.fingerprint != open_clips("shapes:2-3:5", num_frames=9, height=32, width=48).fingerprint


@pytest.mark.parametrize("spec", ["shapes:", "shapes:4", "shapes:3-2", "shapes:0", "shapes:1:0", "shapes:1-2:x"])
def test_a_small_world_that_makes_no_sense(spec: str) -> None:
    with pytest.raises(DataError, match="expected shapes, shapes:OBJECTS or shapes:OBJECTS:CLIPS"):
        open_clips(spec)
