"""What is asked of the Hugging Face Hub: which files a model has, some of them, or a few bytes of one.

All of it is huggingface_hub's own (its cache, session, token, HF_ENDPOINT, HF_HUB_OFFLINE, proxies); here its
errors become sentences. It is imported late: a path on the disk needs none of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, cast

from .errors import CheckpointError, SourceError
from .header import Header, parse_header
from .hub_errors import explained

CHUNK = 1 << 17
"""Bytes of the first request for a header. Of the Hub's thousand most used models 97 in 100 have less than 100 kB, says
huggingface_hub (hf_api.py, parse_safetensors_file_metadata)."""
_MAX_FETCH = 1 << 26
"""Bytes of a tensor that is fetched by itself: a table of positions has a few thousand."""
_TRIES = 3
_FIRST = (".gitattributes", "README.md", "model_index.json", "config.json")


_ID = re.compile(r"[a-zA-Z0-9][\w.-]*/[a-zA-Z0-9_][\w.-]*", re.ASCII)


def is_hub_id(text: str) -> bool:
    """Whether it looks like owner/name."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True)
class Repo:
    """A model on the Hub at one commit."""

    repo_id: str
    commit: str
    folder: Path
    """Its snapshot in the cache, with those of its files that are here."""
    sizes: Mapping[str, int] | None
    """File -> bytes. None if nobody knows: the Hub is out of reach, and an old huggingface_hub filled the cache."""


def open_repo(repo_id: str, revision: str | None) -> Repo:
    """Find a model's commit and the names of its files; of those only the first small ones are downloaded.

    Where the Hub is out of reach, what the cache knows of the model counts.

    Raises:
        SourceError: It is not there, or not for this user, or neither on the Hub nor in the cache.
        CheckpointError: What the Hub lists are no files of a model.
    """
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, IncompleteSnapshotError

    with explained(repo_id, revision), _quietly():
        try:
            folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(_FIRST)))
        except IncompleteSnapshotError as error:  # whether what is missing is needed turns out later
            folder = Path(error.snapshot_path)
    try:
        files = get_cached_repo_tree(repo_id, revision=folder.name)
    except CachedRepoTreeNotFoundError:
        return Repo(repo_id=repo_id, commit=folder.name, folder=folder, sizes=None)
    sizes = {file.path: file.size for file in files}
    for name, size in sizes.items():
        if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise CheckpointError(f"{repo_id}: the Hub lists {name!r:.200}, which is no file inside of the model")
        if type(size) is not int or size < 0:
            raise CheckpointError(f"{repo_id}: the Hub lists {name:.200} with {size!r:.60} bytes, which is no size")
    return Repo(repo_id=repo_id, commit=folder.name, folder=folder, sizes=sizes)


def download(repo: Repo, names: Collection[str], *, with_bars: bool = False) -> None:
    """Have these files in the cache; no request is made for one that is there. Raises `SourceError`."""
    from huggingface_hub import snapshot_download

    if all((repo.folder / name).exists() for name in names):
        return
    with explained(repo.repo_id, repo.commit), nullcontext() if with_bars else _quietly():
        snapshot_download(repo.repo_id, revision=repo.commit, allow_patterns=[escape(name) for name in names])


def fetch_file(repo_id: str, name: str, revision: str | None = None) -> Path:
    """One file of a model, in the cache.

    Raises:
        SourceError: The model or the file is not there, or can't be had.
    """
    repo = open_repo(repo_id, revision)
    if repo.sizes is None or name in repo.sizes:
        download(repo, [name], with_bars=True)
    if not (repo.folder / name).exists():
        held = ", ".join(sorted(repo.sizes or ())[:10]) or "nothing that is known of"
        raise SourceError(f"{repo_id}: there is no {name} in it; it holds {held:.300}")
    return repo.folder / name


@contextmanager
def _quietly() -> Iterator[None]:
    """Without bars: a handful of small files need none, and theirs would break into ours."""
    from huggingface_hub import constants, utils

    tools: Any = utils
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or tools.are_progress_bars_disabled():
        yield
        return
    tools.disable_progress_bars()
    try:
        yield
    finally:
        tools.enable_progress_bars()


def fetch_header(repo: Repo, name: str) -> Header:
    """Read and check the header of a safetensors file that is on the Hub. Its tensors can fetch themselves.

    Raises:
        SourceError: It can't be had.
        CheckpointError: See `parse_header`; or it is not as long as the Hub says.
    """
    size = (repo.sizes or {})[name]
    start = b""

    def read(begin: int, count: int) -> bytes:
        nonlocal start
        if min(begin + count, size) > len(start):
            stop = min(max(begin + count, CHUNK), size)
            start += fetch(repo, name, len(start), stop - len(start))
        return start[begin : begin + count]

    header = parse_header(repo.folder / name, size, read)
    get = partial(_fetch_tensor, repo, name)
    tensors = {key: replace(tensor, fetch=get) for key, tensor in header.tensors.items()}
    return Header(tensors=tensors, metadata=header.metadata)


def fetch(repo: Repo, name: str, start: int, count: int) -> bytes:
    """Bytes of a file on the Hub, by a range request. No more are read, whatever the server sends.

    Raises:
        SourceError: The Hub is out of reach or refuses, or has no ranges.
        CheckpointError: The file is not as long as the Hub says.
    """
    data = bytearray()
    with explained(repo.repo_id, repo.commit):
        for tried in range(1, _TRIES + 1):
            error = _read_on(repo, name, start, count, data)
            if error is not None and tried == _TRIES:
                raise error
            if error is None or len(data) >= count:
                break
    if len(data) < count:
        raise CheckpointError(f"{repo.repo_id}: {name} ends at byte {start + len(data)}, the Hub lists more. Try again")
    return bytes(data[:count])


def _read_on(repo: Repo, name: str, start: int, count: int, data: bytearray) -> Exception | None:
    """Append to `data` what is missing. Returns the error if the connection broke on the way."""
    from huggingface_hub import constants, hf_hub_url, utils

    tools: Any = utils  # which exports by a table that no type checker reads
    begin = start + len(data)
    # A compressed answer would count other bytes than the file's.
    headers = {"Range": f"bytes={begin}-{start + count - 1}", "Accept-Encoding": "identity"}
    with tools.http_stream_backoff(
        "GET",
        hf_hub_url(repo.repo_id, name, revision=repo.commit),
        headers={**tools.build_hf_headers(), **headers},
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        follow_redirects=True,
        max_retries=_TRIES - 1,
    ) as response:
        tools.hf_raise_for_status(response)
        _check_range(repo, name, response, begin)
        try:
            for chunk in response.iter_raw():
                data += chunk
                if len(data) >= count:
                    break
        except tools.httpx.TransportError as error:  # raised further, http_stream_backoff would answer a second time
            return cast("Exception", error)
    return None


def _check_range(repo: Repo, name: str, response: Any, start: int) -> None:
    given = str(response.headers.get("Content-Range", ""))
    if response.status_code != 206 or not given.startswith(f"bytes {start}-"):
        raise SourceError(
            f"{repo.repo_id}: {response.url.host} sends no part of {name}, only all of it (status "
            f"{response.status_code}, expected 206), so its header can't be read alone. Download the model "
            f"(hf download {repo.repo_id}), and come back"
        )
    total, size = given.rpartition("/")[2], (repo.sizes or {})[name]
    if total not in ("*", str(size)):
        raise CheckpointError(f"{repo.repo_id}: {name} has {total:.20} bytes, and the Hub lists it with {size}")


def _fetch_tensor(repo: Repo, name: str, start: int, count: int) -> bytes:
    if count > _MAX_FETCH:
        raise SourceError(
            f"{repo.repo_id}: {count} bytes of {name} are needed, more than is fetched without the file. Download the "
            f"model (hf download {repo.repo_id}), and come back"
        )
    return fetch(repo, name, start, count)
