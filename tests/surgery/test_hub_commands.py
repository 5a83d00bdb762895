"""The commands with a model on the Hub, from a server in miniature: what they download, and when."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import Hub

from modelgrow.surgery import inspect, open_source
from modelgrow.surgery.header import write_header

Grow = Callable[..., tuple[int, str, str]]


def cached(tmp_path: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (tmp_path / "hub").rglob("blobs/*")}


def test_inspect(hub: Hub, wide: Path, grow: Grow) -> None:
    hub.publish("a/b", wide)
    code, out, _ = grow("inspect", "a/b", "--json")
    assert code == 0
    assert json.loads(out) == {**json.loads(grow("inspect", str(wide), "--json")[1]), "name": "a/b"}
    assert hub.sent(".safetensors") < 300_000


@pytest.mark.parametrize(
    "words",
    [
        ["expand", "--mode", "insert"],
        ["attach-llm", "--llm", "llm"],
        ["extend-frames", "--to", "257"],
    ],
)
def test_dry_run(hub: Hub, wide: Path, grow: Grow, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "config.json").write_text('{"hidden_size": 8, "architectures": ["Qwen3Model"]}')
    hub.publish("a/b", wide)
    code, out, err = grow(*words, "a/b", "--dry-run", "--json", "-o", "out")
    assert code == 0, err
    plan = json.loads(out)
    assert plan.pop("download") > 12_000_000
    here = json.loads(grow(*words, str(wide), "--dry-run", "--json", "-o", "out")[1])
    del here["download"]
    assert plan == {**here, "source": "a/b"}
    assert hub.sent(".safetensors") < 300_000
    assert not (tmp_path / "out").exists()


def test_values_that_a_plan_computes_with_are_fetched(hub: Hub, grow: Grow, tmp_path: Path) -> None:
    """Mochi's trained frequencies: a few bytes in the middle of a file that stays where it is."""
    folder = tmp_path / "mochi"
    folder.mkdir()
    (folder / "config.json").write_text('{"_class_name": "MochiTransformer3DModel", "num_layers": 1}')
    block = {"transformer_blocks.0.attn1.to_q.weight": ("F32", (10**6,), 4 * 10**6)}
    header = write_header({**block, "pos_frequencies": ("F32", (3, 2, 4), 96)}, {})
    values = struct.pack("<24f", *(0.37 * number for number in range(24)))
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(header + bytes(4 * 10**6) + values)
    hub.publish("a/mochi", folder)
    plans = []
    for source in ("a/mochi", str(folder)):
        code, out, err = grow("extend-frames", "--to", "200", source, "--dry-run", "--json", "-o", "out")
        assert code == 0, err
        plans.append(json.loads(out)["plans"])
    assert plans[0] == plans[1]
    assert hub.requests[-1].sent == 96
    assert hub.sent(".safetensors") < 200_000


def test_expand(hub: Hub, wide: Path, grow: Grow, tmp_path: Path) -> None:
    hub.publish("a/b", wide)
    code, _, err = grow("expand", "--mode", "insert", "a/b", "-o", "grown")
    assert code == 0, err
    assert "the plan holds; 12.6 MB come from the Hub" in err
    before = cached(tmp_path)
    assert len(before) == 9
    assert not any(path.is_symlink() for path in (tmp_path / "grown").rglob("*"))
    assert grow("expand", "--mode", "insert", str(wide), "-o", "local")[0] == 0
    for path in (tmp_path / "local").rglob("*.safetensors"):
        assert (tmp_path / "grown" / path.relative_to(tmp_path / "local")).read_bytes() == path.read_bytes()
    sent = hub.sent(".safetensors")
    hub.requests.clear()
    code, _, err = grow("expand", "--mode", "insert", "a/b", "-o", "again", "--link")
    assert code == 0, err
    assert "come from the Hub" not in err
    assert not hub.asked(".safetensors") + hub.asked(".json")
    assert sent < 13_500_000
    for path in (tmp_path / "again").rglob("*.safetensors"):
        assert path.stat().st_nlink > 1 or path.parent.name == "transformer"
    assert cached(tmp_path) == before


def test_a_language_model_comes_along_when_it_is_written(hub: Hub, pipeline: Path, grow: Grow, tmp_path: Path) -> None:
    folder = tmp_path / "llm"
    (folder / "original").mkdir(parents=True)
    (folder / "config.json").write_text('{"hidden_size": 8, "architectures": ["Qwen3Model"]}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    for name in ("model", "original/model"):
        (folder / f"{name}.safetensors").write_bytes(
            write_header({"w": ("F32", (500_000,), 2_000_000)}, {}) + bytes(2_000_000)
        )
    commit = hub.publish("a/llm", folder)
    words = ["attach-llm", str(pipeline), "--llm", "a/llm", "--include-llm", "-o", "out", "--json"]
    code, out, err = grow(*words, "--dry-run")
    assert code == 0, err
    plan = json.loads(out)
    assert plan["download"] == (folder / "model.safetensors").stat().st_size
    assert hub.sent("model.safetensors") == 0
    code, out, err = grow(*words)
    assert code == 0, err
    assert hub.sent("model.safetensors") == plan["download"]
    assert json.loads(out)["bytes"] == plan["bytes"]
    written = tmp_path / "out" / "llm"
    assert sorted(path.name for path in written.iterdir()) == ["config.json", "model.safetensors"]
    assert (written / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    slot = json.loads((tmp_path / "out" / "transformer" / "config.json").read_text())["llm_slot"]
    assert (slot["model"], slot["revision"]) == ("a/llm", commit)


def test_a_plan_that_does_not_hold_downloads_nothing(hub: Hub, wide: Path, grow: Grow) -> None:
    hub.publish("a/b", wide)
    code, _, err = grow("expand", "--mode", "insert", "--group", "7", "a/b")
    assert code == 1
    assert "Traceback" not in err
    assert hub.sent(".safetensors") < 300_000


def test_by_the_environment_alone(hub: Hub, wide: Path, tmp_path: Path) -> None:
    """HF_ENDPOINT and HF_HOME, as a user sets them; and the program in a process of its own."""
    hub.publish("a/b", wide, "v1")
    env = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    words = ["expand", "--mode", "insert", "--revision", "v1", "a/b", "-o", str(tmp_path / "grown")]
    program = "import sys; from modelgrow.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *words], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert inspect(open_source(str(tmp_path / "grown"))).components[0].stacks[0].depth == 6
    assert (tmp_path / "home" / "hub" / "models--a--b" / "refs" / "v1").is_file()
