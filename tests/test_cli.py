"""The command line: what it prints, where it exits, and that a mistake leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from architectures import row_of
from models import save

from modelgrow import cli

ROW = row_of("wan")
Grow = Callable[..., tuple[int, str, str]]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save(tmp_path / "base", ROW.class_name, ROW.tiny)


def test_inspect_grow_verify(grow: Grow, base: Path) -> None:
    code, out, _ = grow("inspect", "base")
    assert code == 0
    assert "blocks: 4 blocks of 6.68 k, counted by num_layers" in out
    assert "at most 32 latent frames" in out

    code, out, _ = grow("expand", "--mode", "suffix", "--blocks", "2", "base")
    assert code == 0
    assert "grow verify base-suffix2 --base base" in out

    code, out, _ = grow("verify", "base-suffix2", "--base", "base")
    assert code == 0
    assert "The same function" in out

    code, out, _ = grow("inspect", "base-suffix2", "--json")
    report = json.loads(out)["components"][0]
    assert report["stacks"][0]["depth"] == 6
    assert report["history"] == [
        "base base (WanTransformer3DModel)",
        "expand mode=suffix blocks=2 stack=blocks init=zero",
    ]


def test_dry_run_prints_the_plan_that_runs(grow: Grow, base: Path, tmp_path: Path) -> None:
    words = ("expand", "--mode", "insert", "--group", "2", "base")
    code, out, _ = grow(*words, "--dry-run", "--json")
    planned = json.loads(out)
    assert code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["base"]

    code, out, _ = grow(*words, "--json")
    done = json.loads(out)
    assert done["output"] == planned["output"] == "base-insert2"
    from modelgrow.surgery import open_checkpoint

    written = open_checkpoint(tmp_path / "base-insert2")
    assert {(t["name"], t["dtype"], tuple(t["shape"])) for t in planned["plans"][""]["tensors"]} == {
        (name, tensor.dtype, tensor.shape) for name, tensor in written.tensors.items()
    }
    assert written.record is not None
    assert set(written.record.new) == {t["name"] for t in planned["plans"][""]["tensors"] if t["new"]}


def test_dry_run_for_people(grow: Grow, base: Path) -> None:
    code, out, _ = grow("expand", "--mode", "prefix", "--blocks", "1", "base", "--dry-run")
    assert code == 0
    assert "Nothing was written" in out
    assert "blocks: new blocks 0 (of 0)\n" in out


def test_of_many_new_blocks_some_are_named(grow: Grow, base: Path) -> None:
    code, out, _ = grow("expand", "--mode", "suffix", "--blocks", "9", "base", "--dry-run")
    assert code == 0
    assert "blocks: 9 new blocks, 4 (of 3), 5 (of 3), 6 (of 3) ... 12 (of 3)\n" in out


def test_nothing_is_to_be_proven_of_another_function(grow: Grow, base: Path) -> None:
    proof = "prove it: grow verify"
    assert proof in grow("expand", "--mode", "suffix", "--blocks", "1", "base", "-o", "same")[1]
    assert proof not in grow("expand", "--mode", "suffix", "--blocks", "1", "--init", "copy", "base", "-o", "other")[1]


def test_the_proof_can_be_pasted(grow: Grow, base: Path) -> None:
    base.rename("my base")
    out = grow("expand", "--mode", "suffix", "--blocks", "1", "my base", "-o", "a (1) \u6a21")[1]
    assert "prove it: grow verify 'a (1) \u6a21' --base 'my base'" in out


def test_home(grow: Grow, base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A shell expands neither of these."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert grow("expand", "--mode", "suffix", "~/base", "--output=~/grown")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "grown"]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red circle, moving!", "a-red-circle-moving"),
        (
            "\u043a\u0440\u0430\u0441\u043d\u044b\u0439 \u043a\u0440\u0443\u0433",
            "\u043a\u0440\u0430\u0441\u043d\u044b\u0439-\u043a\u0440\u0443\u0433",
        ),
        ("../../etc/passwd", "etc-passwd"),
        ("\U0001f534", "clip"),
        ("\U00020000" * 99, "\U00020000" * 50),
    ],
)
def test_files_are_named_after_prompts(prompt: str, name: str) -> None:
    from modelgrow.commands.console import slug

    assert slug(prompt) == name


def test_no_empty_bar_above_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    from modelgrow.commands.console import progress
    from modelgrow.surgery.errors import GenerateError

    def fail(*steps: int) -> None:
        with progress("denoising") as advance:
            for step in steps:
                advance(step, 9)
            raise GenerateError("no")

    for steps in ((), (1,)):
        with pytest.raises(GenerateError):
            fail(*steps)
        assert ("denoising" in capfd.readouterr().err) == bool(steps)


def test_what_is_linked_is_told(grow: Grow, base: Path) -> None:
    """Of a single file nothing is; of shards those that hold no new block, if they are large enough."""
    words = ("expand", "--mode", "suffix", "--blocks", "1", "--link")
    assert "--link linked nothing" in grow(*words, "base", "-o", "one")[2]
    config = {**ROW.tiny, "num_attention_heads": 12, "ffn_dim": 1024}
    save(base.parent / "large", ROW.class_name, config, shard="1500KB")
    told = grow(*words, "large", "-o", "linked")[2]
    assert "of its files are hard links to the base's (diffusion_pytorch_model-0000" in told


def test_verify_fails_for_another_function(grow: Grow, base: Path) -> None:
    assert grow("expand", "--mode", "suffix", "--init", "copy", "base", "-o", "copied")[0] == 0
    code, out, _ = grow("verify", "copied", "--base", "base", "--json")
    assert code == 1
    assert json.loads(out)["identical"] is False


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("inspect", "nowhere"), 1, "no such folder or file"),
        (("expand", "--mode", "zigzag", "base"), 2, "insert"),
        (("expand", "base"), 2, "--mode"),
        (("expand", "--mode", "suffix"), 2, "CKPT"),
        (("expand", "--mode", "suffix", "--blocks", "0", "base"), 2, "--blocks"),
        (("expand", "--mode", "insert", "--blocks", "3", "base"), 1, "choose from 1, 2, 4, a multiple of 4"),
        (("expand", "--mode", "insert", "--group", "3", "base"), 1, "choose from 1, 2, 4"),
        (("expand", "--mode", "suffix", "--stack", "heads", "base"), 1, "has no stack 'heads'"),
        (("expand", "--mode", "suffix", "--component", "unet", "base"), 1, "has no component 'unet'"),
        (("expand", "--mode", "suffix", "base", "-o", "base"), 1, "never written to"),
        (("expand", "--mode", "suffix", "base", "-o", "taken"), 1, "exists already"),
        (("expand", "--mode", "suffix", "truncated"), 1, "cut short"),
        (("expand", "--mode", "suffix", "lying"), 1, "num_layers = 9"),
        (("expand", "--mode", "suffix", "stranger"), 1, "Known architectures"),
        (("inspect", "."), 1, "no .safetensors file found, and no model_index.json"),
        (("verify", "base", "--base", "nowhere"), 1, "no such folder"),
        (("verify", "base"), 2, "--base"),
        (("generate",), 2, "--prompt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes(grow: Grow, base: Path, tmp_path: Path, words: tuple[str, ...], code: int, message: str) -> None:
    (tmp_path / "taken").mkdir()
    for name in ("truncated", "lying", "stranger"):
        save(tmp_path / name, ROW.class_name, ROW.tiny)
    weights = tmp_path / "truncated" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    for name, old, new in (("lying", '"num_layers": 4', '"num_layers": 9'), ("stranger", "WanT", "WonT")):
        config = tmp_path / name / "config.json"
        config.write_text(config.read_text().replace(old, new))
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    found, out, err = grow(*words)
    assert found == code
    assert message in err
    assert out == ""
    assert len(err.splitlines()) < 24, "one screen"
    assert "Traceback" not in err
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_unknown_architecture_is_listed(grow: Grow, tmp_path: Path) -> None:
    save(
        tmp_path / "sana",
        "SanaTransformer2DModel",
        {
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "sample_size": 8,
            "cross_attention_dim": 16,
            "caption_channels": 16,
        },
    )
    code, out, _ = grow("inspect", "sana")
    assert code == 0
    assert "transformer_blocks: 2 blocks" in out
    assert "one TOML file must name its stacks" in out


def test_version(grow: Grow) -> None:
    code, out, _ = grow("--version")
    assert code == 0
    assert out.strip()[0].isdigit()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_below_what_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As in `grow expand --help > file`."""
    with contextlib.suppress(OSError), Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "argv", ["grow", "expand", "--help"])
        with pytest.raises(SystemExit, match="1"):
            cli.main()
    assert capsys.readouterr().err == "error: the output: can't be written: No space left on device\n"
