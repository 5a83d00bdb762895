"""Why a model can't be had from the Hub, in a sentence; and what of it counts where the Hub is out of reach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from growths import job_of
from hub_server import Hub

from modelgrow.surgery import (
    CheckpointError,
    GrowError,
    SourceError,
    execute,
    inspect,
    open_source,
)

Maker = Callable[..., Path]


def refusal(argument: str, kind: type[GrowError] = SourceError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        open_source(argument, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_gated(hub: Hub, pipeline: Path) -> None:
    hub.publish("a/b", pipeline)
    hub.gated.add("a/b")
    for headers_only in (False, True):
        message = refusal("a/b", headers_only=headers_only)
        assert f"it is gated. Accept its terms on {hub.endpoint}/a/b, run 'hf auth login'" in message


def test_not_there(hub: Hub, pipeline: Path) -> None:
    assert "there is no such model, or it is private" in refusal("a/missing", headers_only=True)
    hub.publish("a/b", pipeline)
    assert "it has no branch, tag or commit 'v9'" in refusal("a/b", revision="v9", headers_only=True)
    assert "it has no branch, tag or commit" in refusal("a/b", revision="f" * 40, headers_only=True)


def test_offline(hub: Hub, pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish("a/b", pipeline)
    open_source("a/b", headers_only=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "the cache lacks it, or some of it, and HF_HUB_OFFLINE forbids" in refusal("a/c", headers_only=True)
    for headers_only in (False, True):
        assert "HF_HUB_OFFLINE forbids to ask" in refusal("a/b", headers_only=headers_only)


def test_offline_with_all_that_is_needed(
    hub: Hub, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pipeline / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"not downloaded")
    hub.publish("a/b", pipeline)
    before = inspect(open_source("a/b"))
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert inspect(open_source("a/b", headers_only=True)) == before
    assert execute(job_of(open_source("a/b")), tmp_path / "grown").is_dir()
    assert hub.requests == []


def test_out_of_reach(hub: Hub, pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish("a/b", pipeline)
    open_source("a/b")
    hub.broken = 503
    assert "can't be reached" in refusal("a/c", headers_only=True)
    assert len(open_source("a/b", headers_only=True).components) == 2
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 can't be reached" in refusal("a/c", headers_only=True)


def test_no_ranges(hub: Hub, wide: Path) -> None:
    hub.publish("a/b", wide)
    hub.has_ranges = False
    message = refusal("a/b", headers_only=True)
    assert "localhost sends no part of" in message
    assert "hf download a/b" in message


def test_another_size_than_listed(hub: Hub, pipeline: Path) -> None:
    hub.publish("a/b", pipeline)
    hub.told_size = 12345
    assert "has 12345 bytes, and the Hub lists it with" in refusal("a/b", CheckpointError, headers_only=True)


@pytest.mark.parametrize("name", ["../x.safetensors", "a//b", "/etc/x", "a\\b", "vae/./x"])
def test_names_out_of_the_folder(hub: Hub, pipeline: Path, name: str) -> None:
    hub.publish("a/b", pipeline)
    hub.extra = {name: 1}
    assert "which is no file inside of the model" in refusal("a/b", CheckpointError, headers_only=True)


def test_a_config_of_a_gigabyte(hub: Hub, pipeline: Path) -> None:
    hub.publish("a/b", pipeline)
    hub.extra = {"transformer/growth.json": 10**9}
    assert "growth.json has 1000000000 bytes" in refusal("a/b", CheckpointError, headers_only=True)


@pytest.mark.parametrize("headers_only", [True, False])
def test_pickles_alone(hub: Hub, pipeline: Path, make_ltx: Maker, headers_only: bool) -> None:
    component = make_ltx()
    (component / "diffusion_pytorch_model.safetensors").rename(component / "diffusion_pytorch_model.bin")
    hub.publish("a/component", component)
    assert "only diffusion_pytorch_model.bin: pickled weights" in refusal("a/component", headers_only=headers_only)
    for path in (pipeline / "transformer").glob("diffusion*"):
        path.unlink()
    (pipeline / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"never opened")
    hub.publish("a/pipeline", pipeline)
    source = open_source("a/pipeline", headers_only=headers_only)
    with pytest.raises(SourceError, match="transformer has no safetensors: pickled weights can run code"):
        job_of(source)
    assert not [request for request in hub.asked(".bin") if request.sent]


def test_nothing_there(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("words")
    hub.publish("a/b", tmp_path / "empty")
    assert "no .safetensors file found" in refusal("a/b", headers_only=True)


def test_a_connection_that_breaks(hub: Hub, make_ltx: Maker) -> None:
    hub.publish("a/b", make_ltx(depth=40))
    hub.cut = 2
    assert len(open_source("a/b", headers_only=True).components) == 1
    starts = [int(str(request.range)[6:].split("-")[0]) for request in hub.requests if request.is_stored]
    assert 0 == starts[0] < starts[1] < starts[2]
    hub.cut = 3
    assert "can't be reached" in refusal("a/b", headers_only=True)


@pytest.mark.parametrize("page", [b"<html>Please log in</html>", b"{}", b"[]", b'{"sha": 5, "id": 7}', b""])
def test_what_is_no_hub(hub: Hub, page: bytes) -> None:
    hub.page = page
    for headers_only in (False, True):
        assert "Check HF_ENDPOINT" in refusal("a/b", headers_only=headers_only)


@pytest.mark.parametrize("size", [-1, "many", None, 1.5])
def test_sizes_that_are_none(hub: Hub, pipeline: Path, size: Any) -> None:
    hub.publish("a/b", pipeline)
    hub.extra = {"vae/more.safetensors": size}
    assert "which is no size" in refusal("a/b", CheckpointError, headers_only=True)
