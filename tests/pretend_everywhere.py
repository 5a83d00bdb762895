"""`pytest -p pretend_everywhere tests/pipelines`: pipelines lie on a device that is none, see `pretend_device`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pretend_device import DEVICE, pretending

from modelgrow.pipelines import load


@pytest.fixture(autouse=True)
def _on_the_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    own = load.resolve_device
    monkeypatch.setattr(load, "resolve_device", lambda name: DEVICE if name == "auto" else own(name))
    with pretending():
        yield
