"""checksums.sha256: SHA-256 of every file of an output, in the form that sha256sum(1) writes and checks."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from .disk import as_output_error, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CHECKSUMS_NAME = "checksums.sha256"


def write_checksums(folder: Path, known: Mapping[Path, str]) -> None:
    """Write the file into `folder`. `known` digests are taken as they are, the other files are read.

    Raises:
        OutputError: A file can't be read or the list can't be written.
    """
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            digest = known.get(path) or digest_of(path)
        except OSError as error:
            raise as_output_error(error, path) from error
        lines.append(_line(digest, path.relative_to(folder).as_posix()))
    write_text(folder / CHECKSUMS_NAME, "".join(lines))


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises `OSError`."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(digest: str, name: str) -> str:
    if "\\" in name or "\n" in name:  # as sha256sum has it: a backslash in front, and both escaped
        name = name.replace("\\", "\\\\").replace("\n", "\\n")
        digest = "\\" + digest
    return f"{digest}  {name}\n"
