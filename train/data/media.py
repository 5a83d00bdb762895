"""A video as a run of bytes: a whole file, or a member of a tar archive."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

_SAMPLE = 4096


@dataclass(frozen=True, kw_only=True)
class Media:
    """`nbytes` bytes of a file, from `offset`."""

    path: Path
    offset: int = 0
    nbytes: int

    def open(self) -> BinaryIO:
        """Its bytes as a file. Raises `OSError`."""
        return io.BufferedReader(_Part(self), buffer_size=1 << 16)

    def digest(self) -> str:
        """SHA-256 of its size, its first and its last 4 KiB. One of them holds a container's table of frames.

        Raises:
            OSError: It can't be read.
        """
        digest = hashlib.sha256(str(self.nbytes).encode())
        with self.open() as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(self.nbytes - _SAMPLE, 0))
            digest.update(file.read(_SAMPLE))
        return digest.hexdigest()


class _Part(io.RawIOBase):
    """Reads no byte before or after its part of the file."""

    def __init__(self, media: Media) -> None:
        self._media = media
        self._position = 0
        self._file = media.path.open("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._media.nbytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._media.nbytes - self._position))
        self._file.seek(self._media.offset + self._position)
        read = self._file.readinto(view[:count]) if count else 0
        self._position += read
        return read

    def close(self) -> None:
        self._file.close()
        super().close()
