"""What every test can count on: no network, few threads, and no trace of the user's own caches.

Environment variables are set before torch and huggingface_hub are imported, because both read them once.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, serving

# For tiny models more threads only wait for each other, and on a busy machine for minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if os.environ.setdefault("HF_HUB_OFFLINE", "1") == "1":
    os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="modelgrow-hub-")


# A shell starts what runs in the background with Ctrl-C ignored, and every process of ours would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    if os.environ["HF_HUB_OFFLINE"] == "1":
        import shutil

        shutil.rmtree(os.environ["HF_HOME"])


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that needs the internet says so with a mark; any other that tries to connect fails."""
    if request.node.get_closest_marker("hub") or request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            pytest.fail(f"{request.node.nodeid} connects to {address}; mark it hub or network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _torch_as_found() -> Iterator[None]:
    """What a test sets for the whole process, such as the number of threads, ends with it."""
    yield
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)


Grow = Callable[..., tuple[int, str, str]]


@pytest.fixture
def grow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Grow:
    """Runs `grow ...` in the test's own folder: exit code, stdout, stderr."""
    from modelgrow import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["grow", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        code = caught.value.code
        return code if isinstance(code, int) else 0, out, err

    return run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that this process talks to, with an empty cache."""
    import huggingface_hub.constants
    import huggingface_hub.hf_api

    with serving() as hub:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)  # which diffusers asks
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield hub
