"""Runs of what is on the Hub, from a server in miniature: what is downloaded, and what is refused before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from hub_server import Hub
from tiny_runs import bytes_of, settings

from modelgrow.surgery import GrowError
from modelgrow.train.run import train

NAME = "somebody/wan"


def test_a_run_is_that_of_the_folder(hub: Hub, grown: Path, tmp_path: Path) -> None:
    hub.publish(NAME, grown)
    said: list[str] = []
    there = train(settings(Path(NAME), tmp_path / "there", steps=3), tell=said.append)
    assert said[0] == f"loading {NAME}"
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert [request.range is None for request in hub.asked(weights) if request.sent] == [False, True]
    here = train(settings(grown, tmp_path / "here", steps=3))
    assert bytes_of(there.model) == bytes_of(here.model) != bytes_of(grown)
    assert f"# {NAME}, trained\n" in (there.model / "README.md").read_text()
    assert here.growth is not None
    assert there.growth is not None
    names = [sorted(path.name for path in growth.iterdir()) for growth in (here.growth, there.growth)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("base", {}, "somebody/wan: nothing in it has grown"),
        ("base", {"component": "transformer"}, "somebody/wan: transformer has not grown"),
        ("grown", {"component": "vae"}, "somebody/wan: vae has not grown"),
        ("grown", {"component": "unet"}, "has no component 'unet'; it has: .*transformer"),
        ("grown", {"train": "all", "quantize": "torchao-int8"}, "nothing is frozen"),
        ("grown", {"train": "all", "cache_trunk": 1}, "cache_trunk needs a model grown by suffix"),
        ("pictures", {}, "which is text to video, but model_index.json says WanImageToVideoPipeline"),
        ("grown/transformer", {}, "a WanTransformer3DModel by itself, and training needs .* it was grown from base"),
    ],
)
def test_what_cannot_be_is_not_downloaded(
    hub: Hub, grown: Path, tmp_path: Path, model: str, changes: dict[str, Any], message: str
) -> None:
    shutil.copytree(grown, tmp_path / "pictures")
    index = json.loads((grown / "model_index.json").read_text())
    other = json.dumps({**index, "_class_name": "WanImageToVideoPipeline"})
    (tmp_path / "pictures" / "model_index.json").write_text(other)
    hub.publish(NAME, tmp_path / model if model == "pictures" else grown.parent / model)
    with pytest.raises(GrowError, match=message):
        train(settings(Path(NAME), tmp_path / "run", **changes))
    assert hub.asked(".safetensors")
    assert all(request.range for request in hub.asked(".safetensors")), "headers are read, and no more"


def test_data_that_are_not_there_come_first(hub: Hub, grown: Path, tmp_path: Path) -> None:
    hub.publish(NAME, grown)
    (tmp_path / "notes.txt").touch()
    for data, message in (("nothing", "no such folder or file, no Hub id"), ("notes.txt", "expected a folder, a list")):
        with pytest.raises(GrowError, match=message):
            train(settings(Path(NAME), tmp_path / "run", data=str(tmp_path / data)))
    assert not hub.requests


def test_what_was_downloaded_is_enough_out_of_reach(
    hub: Hub, grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish(NAME, grown)
    first = train(settings(Path(NAME), tmp_path / "first", steps=2))
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    again = train(settings(Path(NAME), tmp_path / "again", steps=2))
    assert bytes_of(again.model) == bytes_of(first.model)
    assert not hub.requests
