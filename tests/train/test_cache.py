"""Latents and text states are computed once, whatever happens meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from clip_files import Listed, clip

from modelgrow.surgery import DataError, TrainError
from modelgrow.train.cache import Cache, build_cache
from modelgrow.train.data import Buckets, choose_buckets, encode
from modelgrow.train.data.encode import to_pixels

LENGTH = 12


@dataclass(kw_only=True)
class Toy:
    """Latents are means over 8 x 8 pixels; text states tell the caption. Counts what it was asked for."""

    fingerprint: str = "toy 1"
    stop_after: int | None = None
    clips: int = 0
    captions: list[str] = field(default_factory=list)

    def encode_video(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.stop_after is not None and self.clips >= self.stop_after:
            raise KeyboardInterrupt
        assert pixels.dtype == torch.float32
        assert pixels.abs().max() <= 1
        self.clips += len(pixels)
        return torch.nn.functional.avg_pool3d(pixels, (1, 8, 8))

    def encode_text(self, captions: list[str]) -> dict[str, torch.Tensor]:
        self.captions += captions
        codes = torch.zeros(len(captions), LENGTH)
        for row, caption in enumerate(captions):
            codes[row, : len(caption)] = torch.tensor([float(ord(letter)) for letter in caption])[:LENGTH]
        return {"states": codes[..., None].repeat(1, 1, 3).bfloat16(), "mask": (codes != 0).long()}


def make_source(count: int = 70, **options: Any) -> Listed:
    """Every third clip has a long caption, every fifth is longer."""
    clips = [
        clip(str(number), num_frames=5 + 8 * (number % 5 == 0), long=None if number % 3 else f"long {number}")
        for number in range(count)
    ]
    return Listed(clips=tuple(clips), **options)


def make_buckets(source: Listed) -> Buckets:
    return choose_buckets(source, temporal_factor=4, spatial_factor=16)


def build(folder: Path, *, source: Listed | None = None, encoder: Toy | None = None, **options: Any) -> Cache:
    source, encoder = source or make_source(), encoder or Toy()
    return build_cache(source, make_buckets(source), encoder, folder, batch_size=5, **options)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_large_clips_are_encoded_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together: list[int] = []

    class Watching(Toy):
        def encode_video(self, pixels: torch.Tensor) -> torch.Tensor:
            together.append(len(pixels))
            return super().encode_video(pixels)

    plain = build(tmp_path / "plain")
    size = make_buckets(make_source()).buckets[0]
    monkeypatch.setattr(encode, "PIXELS_AT_ONCE", 2 * size.num_frames * size.height * size.width)
    small = build(tmp_path / "small", encoder=Watching())
    assert max(together) == 2
    assert min(together) == 1
    assert all(torch.equal(small.example(n)["latents"], plain.example(n)["latents"]) for n in range(len(plain)))


def test_every_clip_is_there_as_the_encoder_gave_it(tmp_path: Path) -> None:
    source, encoder = make_source(), Toy()
    cache = build(tmp_path / "cache", source=source, encoder=encoder)
    assert encoder.clips == len(cache) == 70
    assert sorted(cache.keys) == sorted(clip.key for clip in source.clips)
    assert [(bucket.num_frames, len(bucket.clips)) for bucket in cache.buckets] == [(5, 56), (13, 14)]
    for bucket in cache.buckets:
        for index in bucket.clips:
            found = cache.example(index)
            wanted = source.clips[int(cache.keys[index])]
            pixels = to_pixels(source.read(wanted, num_frames=bucket.num_frames, height=32, width=32))
            texts = {"text": wanted.caption, **({"long": wanted.long_caption} if wanted.long_caption else {})}
            expected = {
                f"{kind}.{name}": states[0]
                for kind, text in texts.items()
                for name, states in Toy().encode_text([text]).items()
            }
            expected["latents"] = Toy().encode_video(pixels[None])[0]
            assert found.keys() == expected.keys()
            for name, tensor in expected.items():
                assert found[name].dtype == tensor.dtype, name
                assert torch.equal(found[name], tensor), name
    empty = cache.empty_text()
    assert empty.keys() == {"states", "mask"}
    assert torch.equal(empty["states"], torch.zeros(LENGTH, 3, dtype=torch.bfloat16))


def test_an_interrupted_build_goes_on(tmp_path: Path) -> None:
    """Three shards, of 32, 24 and 14 clips; the first is done when the second is stopped."""
    folder, whole = tmp_path / "cache", tmp_path / "whole"
    with pytest.raises(KeyboardInterrupt):
        build(folder, encoder=Toy(stop_after=40))
    assert {path.name for path in folder.iterdir()} == {"bucket0-00000.safetensors"}
    with pytest.raises(DataError, match="no finished cache"):
        Cache(folder)
    calls: list[tuple[int, int]] = []
    encoder = Toy()
    build(folder, encoder=encoder, report=lambda done, total: calls.append((done, total)))
    assert encoder.clips == 70 - 32
    assert calls == [(32, 70), (56, 70), (70, 70)]
    build(whole)
    assert content(folder) == content(whole)


def test_a_finished_cache_is_only_opened(tmp_path: Path) -> None:
    build(tmp_path)
    before = content(tmp_path)
    encoder = Toy()

    def wait() -> None:
        pytest.fail("nothing to wait for")

    assert len(build(tmp_path, encoder=encoder, wait=wait)) == 70
    assert (encoder.clips, encoder.captions) == (0, [])
    assert content(tmp_path) == before


def test_a_replaced_cache_is_gone_from_the_start(tmp_path: Path) -> None:
    """Half of each would be taken for one."""
    build(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, encoder=Toy(fingerprint="toy 2", stop_after=40), overwrite=True)
    with pytest.raises(DataError, match="no finished cache"):
        Cache(tmp_path)


@pytest.mark.parametrize(
    ("source", "encoder", "reason"),
    [
        (make_source(fingerprint="listed 2"), Toy(), "the clips or their captions have changed"),
        (make_source(), Toy(fingerprint="toy 2"), "the VAE or a text encoder is another"),
        (make_source(30), Toy(), "the clips' sizes are others"),
        (
            make_source(60, fingerprint="listed 2"),
            Toy(),
            "the clips or their captions have changed and the clips' sizes are others",
        ),
    ],
    ids=["source", "encoder", "settings", "both"],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_cache_is_refused_and_replaced_when_asked(
    source: Listed, encoder: Toy, reason: str, finished: bool, tmp_path: Path
) -> None:
    build(tmp_path / "cache")
    if not finished:
        (tmp_path / "cache" / "cache.json").unlink()
    before = content(tmp_path / "cache")
    with pytest.raises(DataError, match=f"made from something else: {reason}. Remove it"):
        build(tmp_path / "cache", source=source, encoder=encoder)
    assert content(tmp_path / "cache") == before
    build(tmp_path / "cache", source=source, encoder=replace(encoder), overwrite=True)
    build(tmp_path / "fresh", source=source, encoder=replace(encoder))
    assert content(tmp_path / "cache") == content(tmp_path / "fresh")


def test_a_lost_or_damaged_shard_is_made_again(tmp_path: Path) -> None:
    build(tmp_path)
    before = content(tmp_path)
    (tmp_path / "bucket0-00001.safetensors").unlink()
    (tmp_path / "bucket1-00000.safetensors").write_bytes(b"damaged")
    encoder = Toy()
    build(tmp_path, encoder=encoder)
    assert encoder.clips == 24 + 14
    assert content(tmp_path) == before


def in_processes(count: int, work: Callable[[int, Callable[[], None]], Any]) -> list[Any]:
    """Threads stand in for processes; `wait` is a barrier, as accelerate's is."""
    barrier, results = threading.Barrier(count, timeout=60), [None] * count

    def wait() -> None:
        barrier.wait()

    def run(index: int) -> None:
        results[index] = work(index, wait)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("count", [2, 5])
def test_processes_share_the_work(count: int, tmp_path: Path) -> None:
    encoders = [Toy() for _ in range(count)]

    def work(index: int, wait: Callable[[], None]) -> int:
        folder, encoder = tmp_path / "cache", encoders[index]
        return len(build(folder, encoder=encoder, process_index=index, num_processes=count, wait=wait))

    assert in_processes(count, work) == [70] * count
    assert [encoder.clips for encoder in encoders] == {2: [32 + 14, 24], 5: [32, 24, 14, 0, 0]}[count]
    build(tmp_path / "alone")
    assert content(tmp_path / "cache") == content(tmp_path / "alone")


def test_a_process_that_did_not_do_its_part_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"bucket0-00001\.safetensors: is missing"):
        build(tmp_path, process_index=0, num_processes=2)
    assert not (tmp_path / "cache.json").exists()


def test_clips_that_can_not_be_decoded_are_left_out(tmp_path: Path) -> None:
    source = make_source(broken=("3", "5"))
    cache = build(tmp_path / "cache", source=source)
    assert set(cache.keys) == {clip.key for clip in source.clips} - {"3", "5"}
    assert [(refused.name, refused.reason) for refused in cache.refused] == [
        ("3", "is damaged in the middle"),
        ("5", "is damaged in the middle"),
    ]
    index = cache.keys.index("6")
    expected = Toy().encode_text(["long 6"])["states"][0]
    assert torch.equal(cache.example(index)["long.states"], expected)
    assert "long.states" not in cache.example(cache.keys.index("7"))


def test_a_shard_without_any_clip_left(tmp_path: Path) -> None:
    source = make_source(broken=tuple(str(number) for number in range(0, 70, 5)))
    cache = build(tmp_path / "cache", source=source)
    assert [(bucket.num_frames, len(bucket.clips)) for bucket in cache.buckets] == [(5, 56)]
    assert len(build(tmp_path / "cache", source=source)) == 56
    with pytest.raises(DataError, match="no clip can be decoded; the first: 1: is damaged in the middle"):
        build(tmp_path / "none", source=make_source(broken=tuple(str(number) for number in range(70))))


def test_an_encoder_that_pads_to_the_longest_is_refused(tmp_path: Path) -> None:
    class Ragged(Toy):
        def encode_text(self, captions: list[str]) -> dict[str, torch.Tensor]:
            return {"states": torch.ones(len(captions), max(map(len, captions)) + len(captions), 3)}

    with pytest.raises(DataError, match=r"text.states: .*one length"):
        build(tmp_path, encoder=Ragged())
