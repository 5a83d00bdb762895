"""`pytest -p pretend_plugin tests/train`: the tests' training runs on a device that is none, see `pretend_device`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pretend_device import on_it


@pytest.fixture(autouse=True)
def _on_the_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with on_it(monkeypatch):
        yield
