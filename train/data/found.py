"""What a listing finds, before any video is opened: bytes and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .clip import Refused
    from .media import Media

FILE_COLUMNS = ("file_name", "path", "video", "file")
TEXT_COLUMNS = ("text", "caption", "prompt")
LONG_COLUMNS = ("long_text", "long_caption", "long_prompt")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A video that somebody lists or that lies in a folder.

    `caption`: None if it has none. `controls`: its control clips by name, or why one that is named can't be had.
    """

    key: str
    media: Media
    caption: str | None
    long_caption: str | None = None
    controls: Mapping[str, Media | DataError] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What was found, and what could not be taken."""

    found: tuple[Found, ...] = ()
    refused: tuple[Refused, ...] = ()


def join(listings: Iterable[Listing]) -> Listing:
    """Several listings as one. Keys are made unique: a video listed twice has two captions, not one."""
    found: list[Found] = []
    refused: list[Refused] = []
    times: dict[str, int] = {}
    for listing in listings:
        refused += listing.refused
        for item in listing.found:
            times[item.key] = count = times.get(item.key, 0) + 1
            found.append(item if count == 1 else replace(item, key=f"{item.key}#{count}"))
    return Listing(found=tuple(found), refused=tuple(refused))


def words(text: Any) -> str | None:
    """A caption on one line, or None if there is none. Raises `DataError` if it is no text at all."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise DataError(f"its caption is {type(text).__name__}, expected text")
    return " ".join(text.split()) or None


def decode(data: bytes) -> str:
    """A caption file's text. Raises `DataError`."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"its caption is not UTF-8 text (byte {error.start})") from error


def column(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of these columns that a row fills."""
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)
