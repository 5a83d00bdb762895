"""Video files through PyAV: what one holds, and its frames."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np

from modelgrow.surgery import DataError

from .fit import fit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from .media import Media

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")

# ffmpeg guesses formats from the bytes. Playlists and scripts among them open other files and addresses.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Sizes as displayed. `fps` is None if the file does not say."""

    num_frames: int
    height: int
    width: int
    fps: float | None


def probe(media: Media) -> VideoInfo:
    """Look into a video: its first frame is decoded, the others are counted.

    Containers that do not give a count are read once, without decoding.

    Raises:
        DataError: It is no video, is cut off, or its first frame can't be decoded. The message has no name in it.
    """
    with _opened(media) as (container, stream):
        declared, rate = stream.frames, stream.average_rate
        _check_whole(stream, media)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise DataError("has no frames")
        height, width = frame.height, frame.width
        if _quarters(frame) % 2:
            height, width = width, height
    return VideoInfo(
        num_frames=declared or _count(media), height=height, width=width, fps=float(rate) if rate else None
    )


def read(media: Media, *, num_frames: int, height: int, width: int) -> np.ndarray:
    """The first frames, cropped and resized. See `ClipSource.read`; the message has no name in it."""
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    with _opened(media) as (container, stream):
        stream.thread_type = "AUTO"
        count = 0
        for frame in container.decode(stream):
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), _quarters(frame))
            frames[count] = fit(pixels, height, width)
            count += 1
            if count == num_frames:
                return frames
    raise DataError(f"only {count} of the {num_frames} frames wanted can be decoded; the file is damaged")


def _quarters(frame: VideoFrame) -> int:
    """How many quarter turns, counterclockwise, a phone wants its picture turned by."""
    return round(frame.rotation / 90)


def _count(media: Media) -> int:
    with _opened(media) as (container, stream):
        return sum(1 for packet in container.demux(stream) if packet.size)


def _check_whole(stream: VideoStream, media: Media) -> None:
    """A container with its table of frames in front opens well even if half the file never arrived."""
    entries = stream.index_entries
    if not len(entries):
        return
    last = entries[len(entries) - 1]
    if last.pos + last.size > media.nbytes:
        raise DataError(f"is cut off: has {media.nbytes} bytes, its frames go on to byte {last.pos + last.size}")


@contextmanager
def _opened(media: Media) -> Iterator[tuple[InputContainer, VideoStream]]:
    if not media.nbytes:
        raise DataError("is empty")
    try:
        with (
            media.open() as file,
            av.open(file, "r", metadata_errors="ignore", options={"format_whitelist": _FORMATS}) as container,
        ):
            if not container.streams.video:
                raise DataError("has no video in it")
            yield container, container.streams.video[0]
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"can't be decoded: {error.strerror or error}") from error
