"""A model on the Hub as a source: what of it has to be here, and where the rest is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import strict_json
from .errors import CheckpointError
from .files import HERE, Files, HubFiles
from .hub import download, open_repo
from .selection import PIPELINE_NAME, is_small, needed
from .source import components_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from .files import Report

_MAX_SMALL = 100_000_000
"""Bytes of the largest file that is fetched to read it; even the index of a large model's shards has fewer."""


def files_of(
    repo_id: str,
    revision: str | None,
    variant: str | None,
    *,
    headers_only: bool,
    fetch: Collection[str] = (),
    report: Report | None = None,
) -> tuple[Path, Files]:
    """The folder in the Hub's cache that stands for a model, and where its files are.

    Args:
        repo_id: Such as "Wan-AI/Wan2.1-T2V-1.3B-Diffusers".
        revision: Branch, tag or commit.
        variant: Weights variant, such as "fp16".
        headers_only: Leave on the Hub what is not in the cache, but for the small files that are read whole.
        fetch: Files to have here even so.
        report: Told the name of every file whose header is fetched.

    Raises:
        SourceError: It can't be had.
        CheckpointError: What the Hub lists is no model's.
    """
    repo = open_repo(repo_id, revision)
    if repo.sizes is None:
        return repo.folder, HERE
    components = None
    if PIPELINE_NAME in repo.sizes:
        download(repo, [PIPELINE_NAME])
        components = components_of(strict_json.read_object(repo.folder / PIPELINE_NAME))
    sizes = needed(repo.sizes, components, variant)
    small = [name for name in sizes if is_small(name)]
    for name in small:
        if sizes[name] > _MAX_SMALL:
            raise CheckpointError(f"{repo_id}: {name:.200} has {sizes[name]} bytes; it is not what its name says")
    files = HubFiles(repo, sizes, report)
    has_weights = any(name.endswith(".safetensors") for name in sizes)
    large = files.counted.intersection(fetch) if headers_only or not has_weights else files.counted
    download(repo, sorted(large.union(small)), with_bars=bool(large))
    return repo.folder, files
