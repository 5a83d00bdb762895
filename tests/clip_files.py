"""Small videos made by PyAV, whose frames can be told apart after coding, and a source of clips without files."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.stream import VideoStream

from modelgrow.surgery import DataError
from modelgrow.train.data import Clip, Refused

CODECS = {
    ".mp4": "libx264",
    ".mov": "libx264",
    ".mkv": "libx264",
    ".webm": "libvpx-vp9",
    ".avi": "mpeg4",
    ".gif": "gif",
}
STEP = 16


def gray(number: int) -> int:
    """The level of a video's frame `number`; every 13 frames it begins again."""
    return 40 + STEP * (number % 13)


def write_video(
    path: Path, *, num_frames: int = 12, height: int = 32, width: int = 48, fps: int = 10, faststart: bool = False
) -> Path:
    """Frame i is gray, of level `gray(i)`; with its left half 30 levels darker."""
    codec = CODECS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=fps))
        stream.width, stream.height = width, height
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for number in range(num_frames):
            pixels = np.full((height, width, 3), gray(number), dtype=np.uint8)
            pixels[:, : width // 2] -= 30
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_captioned(path: Path, caption: str, **options: Any) -> Path:
    """A video with a .txt beside it."""
    write_video(path, **options)
    path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    """An uncompressed tar with these members, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A source whose pixels are the clip's number, and which can't read those in `broken`, nor the control clips of
    those in `broken_controls`."""

    clips: tuple[Clip, ...]
    name: str = "listed"
    refused: tuple[Refused, ...] = ()
    fingerprint: str = "listed 1"
    broken: tuple[str, ...] = ()
    broken_controls: tuple[str, ...] = ()

    @property
    def found_controls(self) -> dict[str, int]:
        return dict(Counter(name for clip in self.clips for name in clip.controls))

    def read(self, clip: Clip, *, num_frames: int, height: int, width: int) -> np.ndarray:
        if clip.key in self.broken:
            raise DataError(f"{clip.key}: is damaged in the middle")
        number = [other.key for other in self.clips].index(clip.key)
        return np.full((num_frames, height, width, 3), number, dtype=np.uint8)

    def read_control(self, clip: Clip, name: str, *, num_frames: int, height: int, width: int) -> np.ndarray:
        """As many levels brighter as its name stands in the clip's list, plus 100."""
        if clip.key in self.broken_controls:
            raise DataError(f"{clip.key}: its {name} is damaged")
        frames = self.read(clip, num_frames=num_frames, height=height, width=width)
        return frames + np.uint8(100 + clip.controls.index(name))


def clip(
    key: str,
    *,
    num_frames: int = 9,
    height: int = 32,
    width: int = 32,
    long: str | None = None,
    controls: tuple[str, ...] = (),
) -> Clip:
    return Clip(
        key=key,
        caption=f"clip {key}",
        long_caption=long,
        num_frames=num_frames,
        height=height,
        width=width,
        controls=controls,
    )
