"""Where a packed growth is: a file, in a folder, or in a model on the Hub."""

from __future__ import annotations

from pathlib import Path

from .errors import SourceError
from .hub import fetch_file, is_hub_id
from .packed import GROWTH_NAME


def find_growth(growth: str | Path) -> Path:
    """The file, downloaded into the Hub's cache if need be.

    Args:
        growth: The file, a folder that holds growth.safetensors, or a Hub id of such a folder.

    Raises:
        SourceError: It is not there.
    """
    path = Path(growth)
    if path.is_dir():
        path = path / GROWTH_NAME
    if path.exists():
        return path
    if not is_hub_id(str(growth)) or str(growth).endswith(".safetensors"):
        raise SourceError(f"{path}: no such file. 'grow pack' makes one, {GROWTH_NAME}")
    return fetch_file(str(growth), GROWTH_NAME)
