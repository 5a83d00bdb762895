"""`grow shrink`, `pack` and `apply` with models on the Hub: what they download, and that a folder gives the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from exvideo_cases import apply_weights, base_of, extension_of
from growths import grow as grow_folder
from growths import overwrite, pack, snapshot
from hub_server import Hub

from modelgrow.surgery import SourceError, open_source
from modelgrow.surgery.exvideo_weights import prepare_export, write_export
from modelgrow.surgery.pack import prepare_pack, write_pack
from modelgrow.surgery.packed import read_packed
from modelgrow.surgery.unpack import execute_apply, prepare_apply

Grow = Callable[..., tuple[int, str, str]]


@pytest.fixture
def grown(hub: Hub, wide: Path, tmp_path: Path) -> Path:
    """A pipeline on the Hub as "a/base", and grown there as "a/grown", and here."""
    folder = grow_folder(wide, tmp_path / "grown")
    hub.publish("a/base", wide)
    hub.publish("a/grown", folder)
    return folder


def asked(hub: Hub) -> set[str]:
    """The weights that were downloaded whole."""
    return {request.name for request in hub.asked(".safetensors") if request.sent and not request.range}


def run(grow: Grow, *words: str) -> dict[str, Any]:
    code, out, err = grow(*words, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


class TestShrink:
    def test_what_the_step_made_stays_there(self, hub: Hub, grown: Path, grow: Grow, tmp_path: Path) -> None:
        told, here = run(grow, "shrink", "a/grown", "--dry-run"), run(grow, "shrink", str(grown), "--dry-run")
        assert not asked(hub)
        assert [t["name"] for t in told["plans"]["transformer"]["tensors"]] == [
            t["name"] for t in here["plans"]["transformer"]["tensors"]
        ]
        assert "is seen once they are here" in told["plans"]["transformer"]["notes"][-1]
        run(grow, "shrink", "a/grown", "-o", "back")
        shards = [f"transformer/diffusion_pytorch_model-{i:05d}-of-00005.safetensors" for i in range(1, 6)]
        assert asked(hub) == {*shards[:2], "vae/diffusion_pytorch_model.safetensors"}
        weights = sum((grown / name).stat().st_size for name in asked(hub))
        assert weights < told["download"] < weights + 1000
        assert told["bytes"] == here["bytes"]
        run(grow, "shrink", str(grown), "-o", "local")
        assert snapshot(tmp_path / "back") == snapshot(tmp_path / "local")

    def test_what_was_trained_since_is_seen(self, hub: Hub, grown: Path, grow: Grow) -> None:
        overwrite(grown / "transformer", "transformer_blocks.0.attn1.to_q.weight", b"\1\2")
        hub.publish("a/grown", grown)
        plan = run(grow, "shrink", "a/grown", "-o", "back")["plans"]["transformer"]
        assert "have changed since (training?)" in plan["notes"][-1]

    def test_links(self, grown: Path, grow: Grow, tmp_path: Path) -> None:
        run(grow, "shrink", str(grown), "-o", "back", "--link", "--checksum")
        weights = "vae/diffusion_pytorch_model.safetensors"
        assert (tmp_path / "back" / weights).stat().st_ino == (grown / weights).stat().st_ino
        assert (tmp_path / "back" / "checksums.sha256").is_file()


class TestPack:
    def test_what_did_not_grow_stays_there(self, hub: Hub, grown: Path, grow: Grow, tmp_path: Path) -> None:
        (grown / "vae" / "large.txt").write_bytes(b"x" * 1_100_000)  # too large for a growth to know its content
        hub.publish("a/grown", grown)
        told, here = run(grow, "pack", "a/grown", "--dry-run"), run(grow, "pack", str(grown), "--dry-run")
        assert not asked(hub)
        parts = told["components"]["transformer"], here["components"]["transformer"]
        assert parts[0]["packed"] == parts[1]["packed"]
        assert (parts[0]["fingerprint"] is None, here["notes"]) == (True, [])
        assert "were trained since" in told["notes"][0]
        run(grow, "pack", "a/grown", "-o", "growth")
        assert {name.partition("/")[0] for name in asked(hub)} == {"transformer"}
        assert not hub.asked("large.txt")
        pack(grown, tmp_path / "local")
        files = [tmp_path / name / "growth.safetensors" for name in ("growth", "local")]
        assert files[0].read_bytes() == files[1].read_bytes()

    def test_a_base_to_compare_with(self, hub: Hub, grown: Path, grow: Grow, tmp_path: Path) -> None:
        overwrite(grown / "transformer", "transformer_blocks.0.attn1.to_q.weight", b"\1\2")
        words = ("pack", str(grown), "--base", "a/base")
        before = run(grow, *words, "--dry-run")["components"]["transformer"]["packed"]
        assert not asked(hub)
        after = run(grow, *words, "-o", "growth")["components"]["transformer"]["packed"]
        assert set(after) - set(before) == {"transformer_blocks.0.attn1.to_q.weight"}
        assert {name.partition("/")[0] for name in asked(hub)} == {"transformer"}

    def test_another_base(self, hub: Hub, grown: Path, make_ltx: Callable[..., Path], grow: Grow) -> None:
        hub.publish("a/other", make_ltx("other", depth=4, width=512))
        code, _, err = grow("pack", "a/grown", "--base", "a/other", "-o", "growth")
        assert code == 1
        assert "a/other: not what" in err
        assert not asked(hub)

    def test_trained_beside_its_growth(self, hub: Hub, grown: Path, grow: Grow, tmp_path: Path) -> None:
        """Seen only by the weights: they are downloaded, and nothing is written."""
        overwrite(grown / "transformer", "transformer_blocks.0.attn1.to_q.weight", b"\1\2")
        hub.publish("a/grown", grown)
        code, _, err = grow("pack", "a/grown", "-o", "growth")
        assert code == 1
        assert "Say --base CKPT" in err
        assert not (tmp_path / "growth").exists()


class TestApply:
    def test_byte_for_byte(self, hub: Hub, grown: Path, grow: Grow, tmp_path: Path) -> None:
        pack(grown, tmp_path / "growth.safetensors")
        words = ("apply", "growth.safetensors", "--base", "a/base")
        told = run(grow, *words, "--dry-run")
        assert not asked(hub)
        assert told["notes"] == [
            "whether the base's weights are those that it was grown from is seen once they are here"
        ]
        done = run(grow, *words, "-o", "again")
        assert done["notes"] == []
        assert done["bytes"] == told["bytes"]
        assert snapshot(tmp_path / "again") == snapshot(grown)
        hub.requests.clear()
        assert run(grow, *words, "--dry-run")["download"] == 0
        assert not asked(hub)

    def test_both_on_the_hub(self, hub: Hub, grown: Path, grow: Grow, tmp_path: Path) -> None:
        pack(grown, tmp_path / "packed")
        hub.publish("a/growth", tmp_path / "packed")
        run(grow, "apply", "a/growth", "--base", "a/base", "-o", "again")
        run(grow, "apply", "packed", "--base", "a/base", "-o", "folder")
        assert snapshot(tmp_path / "again") == snapshot(tmp_path / "folder") == snapshot(grown)
        code, _, err = grow("apply", "a/base", "--base", "a/base")
        assert code == 1
        assert "a/base: there is no growth.safetensors in it; it holds" in err

    def test_other_files_by_their_sizes(self, hub: Hub, wide: Path, grown: Path, grow: Grow, tmp_path: Path) -> None:
        pack(grown, tmp_path / "growth.safetensors")
        (wide / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(
            (wide / "transformer" / "diffusion_pytorch_model-00001-of-00002.safetensors").read_bytes()
        )
        (wide / "more.txt").write_text("more")
        hub.publish("a/base", wide)
        notes = run(grow, "apply", "growth.safetensors", "--base", "a/base", "--dry-run")["notes"]
        assert notes[:2] == [
            "vae/diffusion_pytorch_model.safetensors: is the base's, which is not as it was in the grown folder",
            "more.txt: is the base's; the grown folder had none",
        ]

    @pytest.mark.parametrize(("change", "message"), [({"depth": 2}, "needs 'transf"), ({"width": 256}, "is not as in")])
    def test_another_base(
        self,
        hub: Hub,
        grown: Path,
        make_ltx: Callable[..., Path],
        grow: Grow,
        tmp_path: Path,
        change: dict[str, int],
        message: str,
    ) -> None:
        pack(grown / "transformer", tmp_path / "growth.safetensors")
        hub.publish("a/other", make_ltx("other", **{"width": 512, **change}))
        code, _, err = grow("apply", "growth.safetensors", "--base", "a/other", "-o", "out")
        assert code == 1
        assert "was grown from pipeline" in err
        assert message in err
        assert not asked(hub)

    def test_a_base_of_other_values(self, hub: Hub, wide: Path, grown: Path, grow: Grow, tmp_path: Path) -> None:
        pack(grown, tmp_path / "growth.safetensors")
        overwrite(wide / "transformer", "scale", b"\1\2\3\4")
        hub.publish("a/base", wide)
        code, _, err = grow("apply", "growth.safetensors", "--base", "a/base", "-o", "out")
        assert code == 1
        assert "Name the base that it was grown from" in err
        assert not (tmp_path / "out").exists()


class TestExVideo:
    def test_out_and_back(self, hub: Hub, grow: Grow, tmp_path: Path) -> None:
        hub.publish("a/svd", base_of("case_b"))
        hub.publish("a/grown", apply_weights("case_b", tmp_path / "grown"))
        words = ("apply", str(extension_of("case_b")), "--base", "a/svd")
        assert run(grow, *words, "--dry-run")["download"] > 0
        assert run(grow, "pack", "a/grown", "--format", "diffsynth", "--dry-run")["download"] > 0
        assert not asked(hub)
        assert run(grow, *words)["output"] == "svd-grown"
        run(grow, "pack", "a/grown", "--format", "diffsynth", "-o", "back.safetensors")
        write_export(prepare_export(open_source(str(tmp_path / "grown"))), tmp_path / "local.safetensors")
        assert (tmp_path / "back.safetensors").read_bytes() == (tmp_path / "local.safetensors").read_bytes()

    def test_a_name_that_is_no_files(self, hub: Hub, grow: Grow, tmp_path: Path) -> None:
        hub.publish("a/grown", apply_weights("case_b", tmp_path / "grown"))
        code, _, err = grow("pack", "a/grown", "--format", "diffsynth", "-o", "folder")
        assert code == 1
        assert "name it NAME.safetensors" in err
        assert not asked(hub)


@pytest.mark.parametrize(
    "words",
    [
        ("expand", "--mode", "insert", "a/base"),
        ("attach-llm", "--llm", "llm", "a/base"),
        ("shrink", "a/grown"),
        ("pack", "a/grown"),
        ("pack", "a/grown", "--base", "a/base"),
        ("apply", "growth.safetensors", "--base", "a/base"),
    ],
    ids=" ".join,
)
def test_an_output_that_exists_is_noticed_before_the_download(
    hub: Hub, grown: Path, grow: Grow, tmp_path: Path, words: tuple[str, ...]
) -> None:
    pack(grown, tmp_path / "growth.safetensors")
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "config.json").write_text('{"hidden_size": 8, "architectures": ["Qwen3Model"]}')
    (tmp_path / "taken").mkdir()
    code, _, err = grow(*words, "-o", "taken")
    assert code == 1
    assert "taken: exists already" in err
    assert not asked(hub)
    assert grow(*words, "-o", "taken", "--overwrite")[0] == 0
    assert asked(hub)


def test_an_included_language_model_is_fetched_when_the_plan_holds(
    hub: Hub, pipeline: Path, grow: Grow, tmp_path: Path
) -> None:
    """Of a pipeline that is here too."""
    folder = tmp_path / "llm"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 8, "architectures": ["Qwen3Model"]}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    (folder / "model.safetensors").write_bytes((pipeline / "vae" / "diffusion_pytorch_model.safetensors").read_bytes())
    hub.publish("a/llm", folder)
    (tmp_path / "taken").mkdir()
    words = ("attach-llm", str(pipeline), "--llm", "a/llm", "--include-llm", "-o")
    assert grow(*words, "taken")[0] == 1
    assert grow(*words, "out", "--at", "99")[0] == 1
    assert not asked(hub)
    assert grow(*words, "out")[0] == 0
    assert asked(hub) == {"model.safetensors"}


def test_out_of_reach_what_was_downloaded_is_enough(
    hub: Hub, grown: Path, grow: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(grow, "pack", "a/grown", "-o", "growth")
    words = ("apply", "growth", "--base", "a/base")
    run(grow, *words, "-o", "again")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    run(grow, *words, "-o", "once more")
    assert snapshot(tmp_path / "once more") == snapshot(tmp_path / "again") == snapshot(grown)
    code, _, err = grow("pack", "a/grown", "-o", "other")  # of the VAE, which packing does not need, not even a header
    assert code == 1
    assert "a/grown: not a folder here, and it can't be had from the Hub: the cache lacks it, or some of it" in err


def test_nothing_is_made_of_headers(hub: Hub, grown: Path, tmp_path: Path) -> None:
    growth = tmp_path / "growth.safetensors"
    pack(grown, growth)
    base = open_source("a/base", headers_only=True)
    with pytest.raises(SourceError, match=r"a/base: .* is still on the Hub"):
        execute_apply(prepare_apply(read_packed(growth), base), tmp_path / "out")
    with pytest.raises(SourceError, match=r"a/grown: .* is still on the Hub"):
        write_pack(prepare_pack(open_source("a/grown", headers_only=True)), tmp_path / "out")
    with pytest.raises(SourceError, match=r"a/base: .* is still on the Hub"):
        write_pack(prepare_pack(open_source(str(grown)), base=base), tmp_path / "out")
    assert not (tmp_path / "out").exists()
