"""What went wrong with the Hugging Face Hub, in one sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any

from .errors import GrowError, SourceError, first_line

MODEL, DATA_SET = "model", "data set"
"""Kinds of repositories."""
_UNEXPECTED = (AssertionError, AttributeError, KeyError, TypeError)
"""What huggingface_hub stumbles with over an answer of the wrong shape."""
_NO_HUB = (JSONDecodeError, *_UNEXPECTED)


@contextmanager
def explained(
    repo_id: str, revision: str | None = None, *, kind: str = MODEL, raises: type[GrowError] = SourceError
) -> Iterator[None]:
    """Whatever huggingface_hub and its HTTP library raise inside comes out as one of ours.

    Args:
        repo_id: What is asked for.
        revision: Its branch, tag or commit.
        kind: `MODEL` or `DATA_SET`.
        raises: Which error of ours.
    """
    http = _http()
    try:
        yield
    except SourceError as error:
        if raises is SourceError:
            raise
        raise raises(str(error)) from error
    except GrowError:
        raise
    except (OSError, ValueError, http.HTTPError, http.InvalidURL, *_UNEXPECTED) as error:
        reason = _no_hub(error) if isinstance(error, _NO_HUB) else refusal(error, repo_id, revision, kind=kind)
        reason = reason or f"{first_line(list(_chain(error))[-1]):.300}"
        raise raises(f"{repo_id}: not a folder here, and it can't be had from the Hub: {reason}") from error


def refusal(error: BaseException, repo_id: str, revision: str | None = None, *, kind: str = MODEL) -> str | None:
    """Why the Hub did not give what was asked for, and what to do about it; None if it is not the Hub's doing.

    Args:
        error: huggingface_hub's, or another library's that was raised from one of those.
        repo_id: What was asked for.
        revision: Its branch, tag or commit.
        kind: `MODEL` or `DATA_SET`.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    page = f"{constants.ENDPOINT}/{'datasets/' if kind == DATA_SET else ''}{repo_id}"
    for link in _chain(error):
        if isinstance(link, GatedRepoError):
            return f"it is gated. Accept its terms on {page}, run 'hf auth login', and come back"
        if isinstance(link, RevisionNotFoundError):
            return f"it has no branch, tag or commit {revision or 'main'!r}; {page} lists those it has"
        if isinstance(link, RepositoryNotFoundError):
            advice = "Check the spelling; for a private one run 'hf auth login'"
            return f"there is no such {kind}, or it is private. {advice}"
        if isinstance(link, HfHubHTTPError) and link.response.status_code in (401, 403):
            return f"{link.response.status_code}, refused. Run 'hf auth login', and accept its terms on {page}"
    return _out_of_reach(list(_chain(error)))


def _no_hub(error: Exception) -> str:
    from huggingface_hub import constants

    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{constants.ENDPOINT} does not answer as the Hub does ({what:.200}). Check HF_ENDPOINT and the proxy"


def _out_of_reach(chain: list[BaseException]) -> str | None:
    from huggingface_hub import constants, is_offline_mode
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    is_local = any(isinstance(link, LocalEntryNotFoundError) for link in chain)
    if is_offline_mode() and (is_local or any(isinstance(link, OfflineModeIsEnabled) for link in chain)):
        return "the cache lacks it, or some of it, and HF_HUB_OFFLINE forbids to ask. Unset that, or name a folder"
    if is_local or any(isinstance(link, _http().TransportError) for link in chain):
        return (
            f"{constants.ENDPOINT} can't be reached ({first_line(chain[-1]):.300}), and the cache lacks it, or some of "
            "it. Check the network, a proxy and HF_ENDPOINT"
        )
    return None


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
