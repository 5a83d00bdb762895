"""`grow pack`, `apply`, `shrink` and `remap-lora` as they are typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from growths import snapshot

from modelgrow.surgery import open_checkpoint
from modelgrow.surgery.header import read_header, write_header

Grow = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _grown(make_ltx: Callable[..., Path], grow: Grow) -> None:
    make_ltx()
    assert grow("expand", "--mode", "insert", "base", "-o", "grown")[0] == 0


def test_out_and_back(grow: Grow, tmp_path: Path) -> None:
    code, out, _ = grow("pack", "grown", "-o", "growth.safetensors")
    assert code == 0
    assert "24 tensors, 576 bytes; the other 26 are the base's" in out
    assert (tmp_path / "README.md").is_file()
    assert "no card was written" not in out
    out = grow("pack", "grown", "-o", "growth.safetensors", "--overwrite")[1]
    assert "README.md is there already: no card was written" in out
    code, out, _ = grow("apply", "growth.safetensors", "--base", "base", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["output"] == "base-grown"
    assert report["components"][""]["from_growth"] == 24
    assert snapshot(tmp_path / "base-grown") == snapshot(tmp_path / "grown")
    code, out, _ = grow("shrink", "base-grown", "-o", "again")
    assert code == 0
    assert "takes back expand mode=insert blocks=3" in out
    assert list(open_checkpoint(tmp_path / "again").tensors) == list(open_checkpoint(tmp_path / "base").tensors)


def test_dry_runs_write_nothing(grow: Grow, tmp_path: Path) -> None:
    assert grow("pack", "grown")[0] == 0
    before = snapshot(tmp_path)
    assert set(json.loads(grow("pack", "grown", "--dry-run", "--json")[1])["components"][""]["packed"]) == set(
        read_header(tmp_path / "grown-growth" / "growth.safetensors").tensors
    )
    growth = "grown-growth/growth.safetensors"
    assert "Nothing was written" in grow("apply", growth, "--base", "base", "--dry-run")[1]
    assert "Nothing was written" in grow("shrink", "grown", "--dry-run")[1]
    plan = json.loads(grow("shrink", "grown", "--dry-run", "--json")[1])["plans"][""]
    assert plan["config_edits"] == {"num_layers": 3}
    assert snapshot(tmp_path) == before


def test_remap_lora(grow: Grow, tmp_path: Path) -> None:
    key = "transformer.transformer_blocks.2.attn1.to_q.lora_A.weight"
    (tmp_path / "lora.safetensors").write_bytes(write_header({key: ("F32", (1,), 4)}, {}) + b"abcd")
    moved = key.replace(".2.", ".4.")
    words = ("remap-lora", "lora.safetensors", "--model", "grown")
    assert f"{key} -> {moved}" in grow(*words, "--dry-run")[1]
    code, out, _ = grow(*words)
    assert code == 0
    assert "moved 1 of 1 keys; written: lora-grown.safetensors" in out
    assert list(read_header(tmp_path / "lora-grown.safetensors").tensors) == [moved]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pack", "base"), "no growth.json"),
        (("shrink", "base"), "no growth.json"),
        (("remap-lora", "nothing.safetensors", "--model", "grown"), "nothing.safetensors"),
        (("apply", "nothing.safetensors", "--base", "base"), "nothing.safetensors"),
        (("apply", "base/diffusion_pytorch_model.safetensors", "--base", "base"), "no growth: its metadata"),
        (("pack", "grown", "-o", "base"), "exists already"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_mistakes(grow: Grow, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    before = snapshot(tmp_path)
    code, out, err = grow(*words)
    assert code == 1
    assert message in err
    assert out == ""
    assert snapshot(tmp_path) == before
