"""Pictures and clips that generation starts from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import av
from PIL import Image, ImageOps, UnidentifiedImageError

from modelgrow.surgery import GenerateError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

# ffmpeg guesses formats from the bytes. Playlists and scripts among them open other files and addresses.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"


def read_image(path: Path) -> Image.Image:
    """A picture in RGB, turned the way it is displayed. Raises `GenerateError`."""
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except FileNotFoundError as error:
        raise GenerateError(f"{path}: no such picture") from error
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise GenerateError(f"{path}: no picture that can be read: {error}. Convert it to PNG or JPEG") from error


def read_video(path: Path, *, limit: int | None = None) -> list[Image.Image]:
    """The frames of a clip, the first `limit` of them. Raises `GenerateError`."""
    if not path.is_file():
        raise GenerateError(f"{path}: no such clip")
    frames = []
    try:
        with av.open(str(path), metadata_errors="ignore", options={"format_whitelist": _FORMATS}) as container:
            for frame in container.decode(video=0):
                frames.append(Image.fromarray(frame.to_ndarray(format="rgb24")))
                if len(frames) == limit:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise GenerateError(f"{path}: no clip that can be read: {error}. Convert it to MP4") from error
    if not frames:
        raise GenerateError(f"{path}: there are no frames in it")
    return frames


def check_readable(pictures: Iterable[Path], clips: Iterable[Path]) -> None:
    """Before a model is loaded for them. Raises `GenerateError` for a file that can't be read."""
    for path in pictures:
        read_image(path)
    for path in clips:
        read_video(path, limit=1)


def frame_rate(path: Path) -> float | None:
    """Frames per second of a clip, if it says so. Raises `GenerateError`."""
    if not path.is_file():
        raise GenerateError(f"{path}: no such clip")
    try:
        with av.open(str(path), metadata_errors="ignore", options={"format_whitelist": _FORMATS}) as container:
            rate = container.streams.video[0].average_rate
    except (av.FFmpegError, IndexError) as error:
        raise GenerateError(f"{path}: no clip that can be read: {error}. Convert it to MP4") from error
    return float(rate) if rate else None


def as_pictures(frames: np.ndarray) -> list[Image.Image]:
    """Of `(T, H, W, 3)`, uint8."""
    return [Image.fromarray(frame) for frame in frames]


def fit(picture: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """Resize to `(width, height)` in pixels, cropped around the center where the aspect differs."""
    if size is None or picture.size == size:
        return picture
    return ImageOps.fit(picture, size, method=Image.Resampling.LANCZOS)
