"""Data sets on the Hub, from a server in miniature: what is downloaded, and why one can't be had."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
from clip_files import write_captioned
from hub_server import Hub

from modelgrow.surgery import DataError
from modelgrow.train.data import open_clips


def refusal(name: str) -> str:
    with pytest.raises(DataError) as caught:
        open_clips(name)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _published(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_captioned(tmp_path / "clips" / "a.mp4", "a clip")
    (tmp_path / "clips" / "model.safetensors").write_bytes(b"not downloaded")
    hub.publish("datasets/a/clips", tmp_path / "clips")
    monkeypatch.chdir(tmp_path)


def test_clips_are_downloaded_and_nothing_else(hub: Hub) -> None:
    assert [clip.caption for clip in open_clips("a/clips").clips] == ["a clip"]
    assert {request.name for request in hub.requests if request.sent and "/" not in request.name} == {"a.mp4", "a.txt"}


def test_not_there(hub: Hub) -> None:
    message = refusal("a/missing")
    assert message.startswith(
        "a/missing: not a folder here, and it can't be had from the Hub: there is no such data set"
    )
    assert "run 'hf auth login'" in message


def test_gated(hub: Hub) -> None:
    hub.gated.add("datasets/a/clips")
    assert f"it is gated. Accept its terms on {hub.endpoint}/datasets/a/clips, run 'hf auth login'" in refusal(
        "a/clips"
    )


def test_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "the cache lacks it, or some of it, and HF_HUB_OFFLINE forbids to ask" in refusal("a/clips")


@pytest.mark.parametrize("page", [b"<html>Please log in</html>", b"{}", b"[]"])
def test_what_is_no_hub(hub: Hub, page: bytes) -> None:
    hub.page = page
    assert "Check HF_ENDPOINT" in refusal("a/clips")
