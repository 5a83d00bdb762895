"""Lists of videos: JSON lines, CSV, and a JSON array; ours, Hugging Face's, ExVideo's and Open-Sora's.

A row names a video (`file_name`, `path`, `video` or `file`), says what it shows (`text`, `caption` or
`prompt`; `long_text` or `long_caption`), and names its control clips (`pose_video` and so on). Other columns,
such as Open-Sora's num_frames, height, width and fps, are not needed: the file is asked. Relative paths begin
at the list's folder.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgrow.pipelines.controls import NAMES as CONTROLS
from modelgrow.surgery import DataError

from .clip import Refused
from .found import FILE_COLUMNS, LONG_COLUMNS, TEXT_COLUMNS, Found, Listing, column, words
from .media import Media

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Row = tuple[int, Any]
"""A line's number and what it holds; an exception if it can't be read."""


def read_list(path: Path) -> Listing:
    """Read a .jsonl, .csv or .json list.

    Raises:
        DataError: The list can't be read at all. A line that can't is refused, by its number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
    found: list[Found] = []
    refused: list[Refused] = []
    for number, row in READERS[path.suffix.lower()](text, path):
        try:
            found.append(_found(row, path.parent))
        except DataError as error:
            refused.append(Refused(name=f"{path.name}, line {number}", reason=str(error)))
    return Listing(found=tuple(found), refused=tuple(refused))


def _found(row: Any, folder: Path) -> Found:
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, dict):
        raise DataError(f"is {type(row).__name__}, expected an object with a video and a caption")
    name = column(row, FILE_COLUMNS)
    if not isinstance(name, str):
        raise DataError(f"names no video: expected one of the columns {', '.join(FILE_COLUMNS)}")
    return Found(
        key=Path(name).as_posix(),
        media=_media(name, folder),
        caption=words(column(row, TEXT_COLUMNS)),
        long_caption=words(column(row, LONG_COLUMNS)),
        controls={name: _control(row[name], folder) for name in CONTROLS if row.get(name) not in (None, "")},
    )


def _media(name: str, folder: Path) -> Media:
    path = folder / name
    try:
        nbytes = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        raise DataError(f"{name!r:.200}: not a file's name: {error}") from error
    if nbytes is None:
        raise DataError(f"{name!r:.200}: there is no such file (relative paths begin at {folder})")
    return Media(path=path, nbytes=nbytes)


def _control(name: Any, folder: Path) -> Media | DataError:
    """Or what is wrong with it: a fault of the clip only where its model reads this control clip."""
    if not isinstance(name, str):
        return DataError(f"is {type(name).__name__}, expected a file's name")
    try:
        return _media(name, folder)
    except DataError as error:
        return error


def _json_lines(text: str, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: captions may hold U+2028
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, DataError(f"not JSON: {error}")


def _json_array(text: str, path: Path) -> Iterator[Row]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON array of objects, one per video; found {type(rows).__name__}")
    yield from enumerate(rows, start=1)


def _csv(text: str, path: Path) -> Iterator[Row]:
    lines = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if not set(lines.fieldnames or ()) & set(FILE_COLUMNS):
            raise DataError(
                f"{path}: its first line must name the columns, one of them {', '.join(FILE_COLUMNS)}; "
                f"found {', '.join(lines.fieldnames or ['nothing'])[:80]}"
            )
        for row in lines:
            yield lines.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}: not CSV after line {lines.line_num}: {error}") from error


READERS: dict[str, Callable[[str, Path], Iterator[Row]]] = {".jsonl": _json_lines, ".csv": _csv, ".json": _json_array}
