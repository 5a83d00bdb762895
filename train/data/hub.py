"""Data sets on the Hugging Face Hub: downloaded into its cache, then read as the folder they are."""

from __future__ import annotations

from pathlib import Path

from modelgrow.surgery import DataError
from modelgrow.surgery.hub_errors import DATA_SET, explained

from .folder import LISTS
from .video import SUFFIXES

_PATTERNS = [*(f"*{suffix}" for suffix in (*SUFFIXES, ".txt", ".tar")), *LISTS]


def download(repo_id: str) -> Path:
    """Fetch the videos, captions and lists of a data set; what is in the cache already is not fetched again.

    Raises:
        DataError: There is none of that name, or it can't be had.
    """
    from huggingface_hub import snapshot_download

    with explained(repo_id, kind=DATA_SET, raises=DataError):
        return Path(snapshot_download(repo_id, repo_type="dataset", allow_patterns=_PATTERNS))
