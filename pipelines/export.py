"""From a clip to files that people open: MP4, GIF, a PNG contact sheet, and the settings beside and inside them."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from modelgrow.surgery import OutputError, strict_json
from modelgrow.surgery.disk import as_output_error, write_text
from modelgrow.surgery.staging import check_output

if TYPE_CHECKING:
    from .generate import Generated

SUFFIXES = (".mp4", ".gif", ".png")
MIN_SHOWN = 256
"""Pixels of the shorter side that a clip is enlarged to: players blur small clips beyond recognition."""

_CELL = (128, 320)
"""Pixels of a contact sheet's picture: its shorter side at least, its longer side at most."""
_MAX_PICTURES = 24
_MAX_COLUMNS = 6
_GAP, _TEXT, _INK, _PAPER = 8, 16, (40, 40, 40), (250, 250, 250)


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Frames of one clip on a contact sheet. `frames`: shape `(T, H, W, 3)`, uint8."""

    title: str
    frames: np.ndarray


def save_clip(
    generated: Generated,
    output: Path,
    *,
    contact_sheet: bool = True,
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
) -> tuple[Path, ...]:
    """Write a clip, a contact sheet beside it (clip.png), and its settings (clip.json), all of them or none.

    Small clips are enlarged by a whole number, pixel by pixel, until their shorter side has 256 pixels.

    Args:
        generated: The clip.
        output: .mp4, .gif, or .png for the contact sheet alone.
        contact_sheet: Whether a video gets one beside it.
        overwrite: Replace files that exist.
        inputs: Files that are never written to. A contact sheet that would take the name of one is left out.

    Returns:
        What was written, `output` first.

    Raises:
        OutputError: A file exists, the suffix is none of the three, or it can't be written.
    """
    paths = check_target(output, contact_sheet=contact_sheet, overwrite=overwrite, inputs=inputs)
    settings = dict(generated.settings)
    sidecar = {"file": output.name, "enlarged": enlargement(generated.frames), "settings": settings}
    if output.suffix.lower() == ".png":
        del sidecar["enlarged"]
    writers: dict[str, Callable[[Path], None]] = {
        ".mp4": lambda path: write_mp4(generated.frames, path, fps=generated.fps, settings=settings),
        ".gif": lambda path: write_gif(generated.frames, path, fps=generated.fps, settings=settings),
        ".png": lambda path: write_sheet(
            [Strip(title="", frames=generated.frames)], path, caption=str(settings.get("prompt", "")), settings=settings
        ),
        ".json": lambda path: write_text(path, strict_json.dump(sidecar)),
    }
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.partial-", dir=output.parent) as work:
            for path in paths:
                writers[path.suffix.lower()](Path(work) / path.name)
            for path in paths:
                (Path(work) / path.name).replace(path)
    except OutputError:
        raise
    except OSError as error:
        raise as_output_error(error, output) from error
    return paths


def check_target(
    output: Path, *, contact_sheet: bool = True, overwrite: bool = False, inputs: Sequence[Path] = ()
) -> tuple[Path, ...]:
    """The files that `save_clip` would write. Raises `OutputError` if it would refuse to."""
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise OutputError(f"{output}: can't write {suffix or 'a file without suffix'}; choose {', '.join(SUFFIXES)}")
    sheets = [output.with_suffix(".png")] if contact_sheet and suffix != ".png" else []
    sheets = [sheet for sheet in sheets if sheet.resolve() not in [path.resolve() for path in inputs]]
    paths = (output, *sheets, output.with_suffix(".json"))
    parent = next(parent for parent in output.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{output}: nothing can be written in {parent}. Choose another place with -o")
    for path in paths:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder, and a file is to be written there. Choose another name with -o")
        if path != output and path.exists() and not overwrite:
            raise OutputError(
                f"{output}: {path.name} is to be written beside it and exists already. Choose another name with -o, or "
                "say --overwrite"
            )
        check_output(path, inputs=inputs, overwrite=overwrite)
    return paths


def enlargement(frames: np.ndarray) -> int:
    """The whole number by which `(T, H, W, 3)` frames are enlarged to be seen well."""
    shorter: int = min(frames.shape[1:3])
    return max(1, -(-MIN_SHOWN // shorter))


def write_mp4(frames: np.ndarray, path: Path, *, fps: int, settings: Mapping[str, Any]) -> None:
    """H.264 that every player takes. Odd sizes get one more row or column, as 4:2:0 colors come in pairs.

    Raises:
        OutputError: ffmpeg did not finish well.
    """
    import imageio_ffmpeg

    shown = _enlarge(frames, enlargement(frames))
    shown = np.pad(shown, ((0, 0), (0, shown.shape[1] % 2), (0, shown.shape[2] % 2), (0, 0)), mode="edge")
    height, width = shown.shape[1:3]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    command += ["-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    # Players guess the color matrix from the size where the file does not say it.
    command += ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709"]
    command += ["-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
    command += ["-metadata", f"comment={_compact(settings)}", "-f", "mp4", str(path)]
    done = subprocess.run(command, input=shown.tobytes(), capture_output=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise OutputError(f"{path.name}: ffmpeg can't write it: {lines[-1]}")


def write_gif(frames: np.ndarray, path: Path, *, fps: int, settings: Mapping[str, Any]) -> None:
    """An endless GIF with one palette for all frames. Its clock has hundredths of a second."""
    shown = _enlarge(frames, enlargement(frames))
    some = frames[:: max(1, len(frames) // _MAX_PICTURES)]
    palette = Image.fromarray(some.reshape(-1, *some.shape[2:])).quantize(256)
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in shown]
    pictures[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=max(20, round(100 / fps) * 10),  # viewers slow down what is faster than 20 ms
        loop=0,
        comment=_compact(settings).encode(),
    )


def write_sheet(strips: Sequence[Strip], path: Path, *, caption: str, settings: Mapping[str, Any]) -> None:
    """A contact sheet as PNG, the settings in its text chunk "settings"."""
    text = PngInfo()
    text.add_itxt("settings", _compact(settings))
    draw_sheet(strips, caption=caption).save(path, format="PNG", pnginfo=text)


def draw_sheet(strips: Sequence[Strip], *, caption: str) -> Image.Image:
    """Frames of one or more clips in a grid, each with its number, below a caption.

    One clip fills rows from left to right. Several clips of the same length and size stand one below the
    other, so that equal frames share a column. Of long clips every second frame is shown, or every third,
    and so on, at most 24 pictures in all.
    """
    count = len(strips[0].frames)
    shown = range(0, count, -(-count * len(strips) // _MAX_PICTURES))
    columns = len(shown) if len(strips) > 1 else min(len(shown), _MAX_COLUMNS)
    width, height = _cell_size(strips[0].frames)
    rows = -(-len(shown) // columns)
    font = ImageFont.load_default(size=_TEXT - 3)
    sheet_width = columns * (width + _GAP) + _GAP
    lines = _wrap(caption, font, sheet_width - 2 * _GAP)
    titled = any(strip.title for strip in strips)
    band = (_TEXT + _GAP) * titled + rows * (height + _TEXT + _GAP)
    sheet = Image.new("RGB", (sheet_width, _GAP + len(lines) * _TEXT + _GAP + len(strips) * band), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((_GAP, _GAP + number * _TEXT), line, fill=_INK, font=font)
    for place, strip in enumerate(strips):
        top = 2 * _GAP + len(lines) * _TEXT + place * band
        if titled:
            draw.text((_GAP, top), strip.title, fill=_INK, font=font)
            top += _TEXT + _GAP
        for cell, index in enumerate(shown):
            x = _GAP + cell % columns * (width + _GAP)
            y = top + cell // columns * (height + _TEXT + _GAP)
            sheet.paste(_fit(strip.frames[index], width, height), (x, y))
            draw.text((x, y + height), str(index), fill=_INK, font=font)
    return sheet


def _cell_size(frames: np.ndarray) -> tuple[int, int]:
    """Width and height of a picture: enlarged by a whole number, or shrunk to fit."""
    height, width = frames.shape[1:3]
    least, most = _CELL
    factor: float = max(1, -(-least // min(height, width)))
    if max(height, width) * factor > most:
        factor = min(1.0, most / max(height, width)) if max(height, width) > most else most // max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _fit(frame: np.ndarray, width: int, height: int) -> Image.Image:
    larger = width >= frame.shape[1]
    return Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST if larger else Image.Resampling.BOX)


def _wrap(text: str, font: Any, width: int) -> list[str]:
    return textwrap.wrap(text, max(8, int(width / max(font.getlength("n"), 1)))) if text else []


def _enlarge(frames: np.ndarray, factor: int) -> np.ndarray:
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def _compact(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), ensure_ascii=False, separators=(",", ":"))
