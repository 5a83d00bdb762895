"""What went wrong with the Hugging Face Hub, in one sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any

from .errors import GrowError, SourceError, first_line

_UNEXPECTED = (AssertionError, AttributeError, KeyError, TypeError)
"""What huggingface_hub stumbles with over an answer of the wrong shape."""
_NO_HUB = (JSONDecodeError, *_UNEXPECTED)


@contextmanager
def explained(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Whatever huggingface_hub and its HTTP library raise inside comes out as a `SourceError`."""
    http = _http()
    try:
        yield
    except GrowError:
        raise
    except (OSError, ValueError, http.HTTPError, http.InvalidURL, *_UNEXPECTED) as error:
        reason = _no_hub(error) if isinstance(error, _NO_HUB) else _reason(repo_id, revision, error)
        raise SourceError(f"{repo_id}: not a folder here, and it can't be had from the Hub: {reason}") from error


def _no_hub(error: Exception) -> str:
    from huggingface_hub import constants

    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{constants.ENDPOINT} does not answer as the Hub does ({what:.200}). Check HF_ENDPOINT and the proxy"


def _reason(repo_id: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    page = f"{constants.ENDPOINT}/{repo_id}"
    for link in _chain(error):
        if isinstance(link, GatedRepoError):
            return f"it is gated. Accept its terms on {page}, run 'hf auth login', and come back"
        if isinstance(link, RevisionNotFoundError):
            return f"it has no branch, tag or commit {revision or 'main'!r}; {page} lists those it has"
        if isinstance(link, RepositoryNotFoundError):
            return "there is no such model, or it is private. Check the spelling; for a private one run 'hf auth login'"
        if isinstance(link, HfHubHTTPError) and link.response.status_code in (401, 403):
            return f"{link.response.status_code}, refused. Run 'hf auth login', and accept its terms on {page}"
    return _out_of_reach(error)


def _out_of_reach(error: Exception) -> str:
    from huggingface_hub import constants, is_offline_mode
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    if is_offline_mode() and isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return "the cache lacks it, or some of it, and HF_HUB_OFFLINE forbids to ask. Unset that, or name a folder"
    first = list(_chain(error))[-1]
    told = first_line(first)
    if isinstance(error, LocalEntryNotFoundError | _http().TransportError):
        return (
            f"{constants.ENDPOINT} can't be reached ({told:.300}), and the cache lacks it, or some of it. Check the "
            "network, a proxy and HF_ENDPOINT"
        )
    return f"{told:.300}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def _http() -> Any:
    """The HTTP library of huggingface_hub: httpx, or httpx2 since its version 2. No type checker sees the export."""
    from huggingface_hub import utils

    tools: Any = utils
    return tools.httpx
