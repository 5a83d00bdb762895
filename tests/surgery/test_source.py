"""From what a user types to a source: paths, pipelines, the Hub's cache; and nothing out of the folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from growths import job_of

from modelgrow import cli
from modelgrow.surgery import (
    CheckpointError,
    GrowError,
    SourceError,
    anatomies,
    execute,
    inspect,
    open_source,
    prepare,
)
from modelgrow.surgery.header import write_header
from modelgrow.surgery.source import choose

Maker = Callable[..., Path]


def refusal(argument: object, **options: Any) -> str:
    with pytest.raises(GrowError) as caught:
        open_source(str(argument), **options)
    assert isinstance(caught.value, CheckpointError | SourceError)
    message = str(caught.value)
    assert message.isprintable()
    return message


class TestArguments:
    @pytest.mark.parametrize(
        "argument",
        [
            "",
            "nothing",
            "../nothing",
            "./a",
            "-/.",
            "a/b/c",
            "a b/c",
            "x" * 5000,
            "\0",
            "\ud800",
            "\x1b[2J",
            "https://x/y",
        ],
    )
    def test_nothing_there(self, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert "no such folder or file, and not a Hub id" in refusal(argument)

    def test_a_page_of_the_hub(self) -> None:
        assert "those look like Wan-AI/Wan2.1)" in refusal("https://huggingface.co/Wan-AI/Wan2.1/tree/main")

    def test_a_component_of_what_has_none(self, make_ltx: Maker) -> None:
        with pytest.raises(SourceError, match="base: has no component 'transformer'; it is one by itself"):
            choose(open_source(str(make_ltx())), ["transformer"], anatomies())

    @pytest.mark.parametrize("argument", ["a/" + "b" * 200, "a..b/c", "a/b.git", "a/b-"])
    def test_not_a_hub_id_after_all(self, argument: str) -> None:
        assert "can't be had from the Hub" in refusal(argument)

    def test_special_files(self, tmp_path: Path, make_ltx: Maker) -> None:
        os.mkfifo(tmp_path / "pipe.safetensors")
        (tmp_path / "loop").symlink_to("loop")
        assert "a pipe" in refusal(tmp_path / "pipe.safetensors")
        assert "leads nowhere" in refusal(tmp_path / "loop")
        assert "a device" in refusal("/dev/null")
        assert "no such folder" in refusal(make_ltx() / "config.json" / "below")

    def test_a_folder_called_like_a_file(self, make_ltx: Maker) -> None:
        assert len(open_source(str(make_ltx("base.safetensors"))).components) == 1

    def test_without_a_config_it_can_be_looked_at_and_not_grown(self, make_ltx: Maker) -> None:
        folder = make_ltx()
        (folder / "config.json").rename(folder / "other.json")
        (report,) = inspect(open_source(str(folder))).components
        assert (report.class_name, report.growable) == ("unknown (no config.json)", False)
        with pytest.raises(SourceError, match="so its architecture is unknown"):
            job_of(folder, "suffix", blocks=1)
        config = folder / "other.json"
        assert inspect(open_source(str(folder), config=config)).components[0].growable

    def test_names(self, make_ltx: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = make_ltx("v1.5")
        (tmp_path / "link").symlink_to("v1.5")
        monkeypatch.chdir(folder)
        assert open_source(".").name == "v1.5"
        assert open_source(str(tmp_path / "link")).name == "v1.5"
        assert open_source("diffusion_pytorch_model.safetensors").name == "diffusion_pytorch_model"


class TestPipeline:
    def test_what_is_damaged_below_is_good(self, pipeline: Path) -> None:
        source = open_source(str(pipeline))
        assert [component.name for component in source.components] == ["transformer", "vae"]

    @pytest.mark.parametrize("name", ["../base", "..", "", "/etc", "a/b", "a\\b", "transformer.", "\x1b[2J", "x\0"])
    def test_names_of_components(self, pipeline: Path, name: str) -> None:
        index = json.loads((pipeline / "model_index.json").read_text())
        index[name] = ["diffusers", "LTXVideoTransformer3DModel"]
        (pipeline / "model_index.json").write_text(json.dumps(index))
        assert "is no name for a component's folder" in refusal(pipeline)

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"vae": 1, "vae": 1}', "[" * 100_000, '{"\\ud800": 1}'])
    def test_damaged_index(self, pipeline: Path, text: str) -> None:
        (pipeline / "model_index.json").write_text(text)
        assert refusal(pipeline).startswith(str(pipeline / "model_index.json"))

    @pytest.mark.parametrize("value", [1, None, "x", [], ["diffusers"], ["a", None], [1, 2], ["a", "b", "c"], {"a": 1}])
    def test_entries_that_name_no_class_are_settings(self, pipeline: Path, value: Any) -> None:
        index = json.loads((pipeline / "model_index.json").read_text())
        index["vae"] = value
        index["_class_name"] = value
        (pipeline / "model_index.json").write_text(json.dumps(index))
        source = open_source(str(pipeline))
        assert [component.name for component in source.components] == ["transformer"]
        assert inspect(source).pipeline == str(value)

    def test_another_class_than_the_config_says(self, pipeline: Path) -> None:
        (pipeline / "vae" / "config.json").write_text('{"_class_name": "Other\\u001b"}')
        assert r"vae is 'AutoencoderKLLTXVideo', its config.json says 'Other\x1b'" in refusal(pipeline)

    def test_a_config_without_a_class(self, pipeline: Path) -> None:
        path = pipeline / "transformer" / "config.json"
        config = json.loads(path.read_text())
        del config["_class_name"]
        path.write_text(json.dumps(config))
        with pytest.raises(SourceError, match="has the class None, where the pipeline says LTXVideoTransformer3DModel"):
            job_of(pipeline, "suffix", blocks=1)

    def test_a_component_is_no_link(self, pipeline: Path, tmp_path: Path) -> None:
        """Neither out of the pipeline nor inside: what a growth carries along would lack it."""
        (pipeline / "vae").rename(tmp_path / "vae")
        for target in (tmp_path / "vae", "transformer"):
            (pipeline / "vae").symlink_to(target)
            assert f"{pipeline / 'vae'}: a component must be a folder" in refusal(pipeline)
            (pipeline / "vae").unlink()

    def test_the_index_is_no_link_out(self, pipeline: Path, tmp_path: Path) -> None:
        (pipeline / "model_index.json").rename(tmp_path / "elsewhere.json")
        (pipeline / "model_index.json").symlink_to(tmp_path / "elsewhere.json")
        assert "links out of its folder" in refusal(pipeline)

    def test_nothing_is_carried_from_outside(self, pipeline: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("not to be published")
        (pipeline / "scheduler" / "README.md").symlink_to(tmp_path / "secret")
        job = job_of(pipeline, "suffix", blocks=1)
        with pytest.raises(CheckpointError, match="links out of its folder"):
            execute(job, tmp_path / "grown")
        assert not (tmp_path / "grown").exists()
        (pipeline / "scheduler" / "README.md").unlink()
        (pipeline / "scheduler" / "README.md").symlink_to("../model_index.json")
        grown = execute(job_of(pipeline, "suffix", blocks=1), tmp_path / "grown")
        assert not (grown / "scheduler" / "README.md").is_symlink()
        assert (grown / "scheduler" / "README.md").read_bytes() == (pipeline / "model_index.json").read_bytes()

    def test_a_variant_that_only_some_have(self, pipeline: Path) -> None:
        plain = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
        plain.rename(plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
        source = open_source(str(pipeline), variant="fp16")
        assert [component.name for component in source.components] == ["transformer", "vae"]

    def test_the_folder_above_names_what_is_in_it(self, pipeline: Path) -> None:
        """Such as the folder of a run, in which the model is one among others."""
        (pipeline.parent / "others").mkdir()
        message = refusal(pipeline.parent)
        assert message.endswith(f"Name one of those in it: {pipeline}")
        assert "no model_index.json" in refusal(pipeline.parent / "others")

    def test_little_is_said_of_parts_that_cannot_grow(self, pipeline: Path, grow: Callable[..., Any]) -> None:
        out = grow("inspect", str(pipeline))[1]
        assert "vae: AutoencoderKLLTXVideo  " in out
        assert "can grow" in out
        assert "can't grow" not in out
        assert "can't grow" in grow("inspect", str(pipeline / "vae"))[1]

    def test_a_component_that_cannot_grow(self, pipeline: Path) -> None:
        with pytest.raises(SourceError, match=r"vae is .*, which can't grow; what can is transformer"):
            prepare(open_source(str(pipeline)), lambda *_: pytest.fail("planned"), components=["vae"])


def hub_cache(folder: Path, root: Path) -> Path:
    """A folder's files as the Hub's cache keeps them. Returns the snapshot."""
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("rev1")
    snapshot = root / "snapshots" / "rev1"
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        if ".git" in path.parts:
            continue
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = root / "blobs" / f"{number:040x}"
        blob.write_bytes(path.read_bytes())
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


class TestHubCache:
    def test_a_snapshot_grows_and_is_not_written_to(self, pipeline: Path, tmp_path: Path) -> None:
        root = tmp_path / "hub" / "models--a--b"
        snapshot = hub_cache(pipeline, root)
        before = {path: path.read_bytes() for path in (root / "blobs").iterdir()}
        grown = execute(job_of(snapshot, "suffix", blocks=1), tmp_path / "grown")
        assert open_source(str(grown)).components[0].checkpoint is not None
        assert not any(path.is_symlink() for path in grown.rglob("*"))
        assert {path: path.read_bytes() for path in (root / "blobs").iterdir()} == before

    def test_a_component_of_it(self, pipeline: Path, tmp_path: Path) -> None:
        snapshot = hub_cache(pipeline, tmp_path / "models--a--b")
        assert len(open_source(str(snapshot / "transformer")).components) == 1

    def test_the_folder_above_names_the_snapshots(self, pipeline: Path, tmp_path: Path) -> None:
        root = tmp_path / "models--a--b"
        snapshot = hub_cache(pipeline, root)
        message = refusal(root)
        assert "a model's folder in the Hub cache" in message
        assert str(snapshot) in message

    def test_no_blobs_of_others(self, pipeline: Path, tmp_path: Path) -> None:
        """A folder called blobs is no excuse by itself."""
        snapshot = hub_cache(pipeline, tmp_path / "models--a--b")
        secret = tmp_path / "blobs" / "secret"
        secret.parent.mkdir()
        secret.write_text("{}")
        (snapshot / "model_index.json").unlink()
        (snapshot / "model_index.json").symlink_to(secret)
        assert "links out of its folder" in refusal(snapshot)


class TestTerminal:
    """Names in a file can hold anything; what is printed can't."""

    @pytest.mark.parametrize("words", [["inspect"], ["expand", "--mode", "insert", "--dry-run"]])
    def test_names_are_printed_escaped(
        self,
        make_ltx: Maker,
        tmp_path: Path,
        words: list[str],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        folder = make_ltx()
        evil = "\x1b[2J[/red][bold]\r\n"
        modules = ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2", evil)
        names = [f"{evil}.{i}.{evil}" for i in range(2)] + [f"transformer_blocks.0.{m}.weight" for m in modules]
        header = write_header({name: ("F32", (1,), 4) for name in names}, {})
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(header + bytes(4 * len(names)))
        config = {"_class_name": "LTXVideoTransformer3DModel", "num_layers": 1}
        for class_name in ("LTXVideoTransformer3DModel", evil):
            (folder / "config.json").write_text(json.dumps({**config, "_class_name": class_name}))
            monkeypatch.setattr(sys, "argv", ["grow", *words, str(folder)])
            with pytest.raises(SystemExit):
                cli.main()
            out, err = capsys.readouterr()
            assert "Traceback" not in err
            assert "\x1b" not in out + err
            assert "\r" not in out + err
            assert "[2J" in out + err or class_name != evil
