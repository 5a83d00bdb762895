"""What is written: the right bytes, in the right files, complete under the final name or absent."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from growths import job_of, snapshot

from modelgrow.surgery import (
    CheckpointError,
    OutputError,
    SourceError,
    execute,
    open_checkpoint,
    open_source,
)
from modelgrow.surgery.fingerprint import fingerprint_of
from modelgrow.surgery.header import read_header
from modelgrow.surgery.layout import OutputFile
from modelgrow.surgery.move import Mover
from modelgrow.surgery.readback import read_chunks

Maker = Callable[..., Path]


def data(folder: Path, name: str) -> bytes:
    return b"".join(read_chunks(open_checkpoint(folder).tensors[name]))


def replace_by_copy(path: Path) -> None:
    """The same bytes, size and time, in another file."""
    copy = path.with_suffix(".copy")
    shutil.copy2(path, copy)
    copy.replace(path)


@pytest.mark.parametrize("shards", [1, 3])
def test_every_tensor_has_its_sources_bytes(make_ltx: Maker, tmp_path: Path, shards: int) -> None:
    base = make_ltx(shards=shards)
    before = snapshot(base)
    grown = execute(job_of(base), tmp_path / "grown")
    for i in range(3):
        for module in ("attn1.to_q", "attn1.to_out.0", "attn2.to_out.0", "ff.net.2"):
            for kind in ("weight", "bias"):
                old = data(base, f"transformer_blocks.{i}.{module}.{kind}")
                assert data(grown, f"transformer_blocks.{2 * i}.{module}.{kind}") == old
                copied = data(grown, f"transformer_blocks.{2 * i + 1}.{module}.{kind}")
                assert copied == (old if module == "attn1.to_q" else bytes(len(old)))
    assert data(grown, "scale") == data(base, "scale")
    assert snapshot(base) == before


def test_single_file_stays_a_single_file(make_ltx: Maker, tmp_path: Path) -> None:
    grown = execute(job_of(make_ltx()), tmp_path / "grown")
    assert set(snapshot(grown)) == {"README.md", "config.json", "diffusion_pytorch_model.safetensors", "growth.json"}
    config = json.loads((grown / "config.json").read_text())
    assert config == {"_class_name": "LTXVideoTransformer3DModel", "num_layers": 6, "note": "kept"}
    assert read_header(grown / "diffusion_pytorch_model.safetensors").metadata == {"format": "pt", "made": "by hand"}


def test_shards_keep_and_each_new_block_gets_its_own(make_ltx: Maker, tmp_path: Path) -> None:
    grown = execute(job_of(make_ltx(shards=3), mode="suffix", blocks=2), tmp_path / "grown")
    index = json.loads((grown / "diffusion_pytorch_model.safetensors.index.json").read_text())
    new = {name: file for name, file in index["weight_map"].items() if name.startswith("transformer_blocks.")}
    files = {i: {file for name, file in new.items() if name.split(".")[1] == i} for i in ("3", "4")}
    assert files == {
        "3": {"diffusion_pytorch_model-00004-of-00005.safetensors"},
        "4": {"diffusion_pytorch_model-00005-of-00005.safetensors"},
    }
    total = sum(t.nbytes for path in grown.glob("*.safetensors") for t in read_header(path).tensors.values())
    assert index["metadata"]["total_size"] == total


def test_tensors_are_aligned_to_their_dtype(make_ltx: Maker, tmp_path: Path) -> None:
    grown = execute(job_of(make_ltx()), tmp_path / "grown")
    for tensor in open_checkpoint(grown).tensors.values():
        assert tensor.offset % {"F32": 4, "BF16": 2}[tensor.dtype] == 0


def test_the_official_library_reads_it(make_ltx: Maker, tmp_path: Path) -> None:
    from safetensors import safe_open

    grown = execute(job_of(make_ltx()), tmp_path / "grown")
    with safe_open(grown / "diffusion_pytorch_model.safetensors", framework="numpy") as file:
        assert set(file.keys()) == set(open_checkpoint(grown).tensors)


def test_output_is_the_same_every_time(make_ltx: Maker, tmp_path: Path) -> None:
    base = make_ltx(shards=2)
    assert snapshot(execute(job_of(base), tmp_path / "a")) == snapshot(execute(job_of(base), tmp_path / "b"))


def test_what_files_are_made_of_is_found_out_once(
    make_ltx: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, names = OutputFile.segments, list[str]()

    def counted(self: OutputFile, sources: Any) -> Any:
        names.append(self.name)
        return resolve(self, sources)

    monkeypatch.setattr(OutputFile, "segments", counted)
    grown = execute(job_of(make_ltx(shards=3)), tmp_path / "grown")
    assert sorted(names) == sorted(path.name for path in grown.glob("*.safetensors"))


def test_pipeline_in_pipeline_out(make_pipeline: Callable[[], Path], tmp_path: Path) -> None:
    base = make_pipeline()
    grown = execute(job_of(base, mode="suffix", blocks=1), tmp_path / "grown")
    before, after = snapshot(base), snapshot(grown)
    assert {name for name in before if name.startswith(("vae", "scheduler", "model_index"))} <= set(after)
    assert all(after[name] == before[name] for name in after if name in before and not name.startswith("transformer"))
    assert not any(name.startswith(".git") for name in after)
    assert json.loads((grown / "transformer" / "config.json").read_text())["num_layers"] == 4
    assert (grown / "transformer" / "growth.json").is_file()
    assert not (grown / "growth.json").exists()


def test_only_the_named_component_grows(make_pipeline: Callable[[], Path]) -> None:
    source = open_source(str(make_pipeline()))

    assert list(job_of(source, "suffix", components=["transformer"]).plans) == ["transformer"]
    with pytest.raises(SourceError, match="vae is AutoencoderKLLTXVideo"):
        job_of(source, "suffix", components=["vae"])
    with pytest.raises(SourceError, match="has no component 'unet'; it has: transformer, vae"):
        job_of(source, "suffix", components=["unet"])


def test_symlinked_cache_is_read_and_never_written(make_ltx: Maker, tmp_path: Path) -> None:
    real = make_ltx("blobs")
    snapshots = tmp_path / "snapshots" / "rev"
    snapshots.mkdir(parents=True)
    for path in real.iterdir():
        (snapshots / path.name).symlink_to(Path("..") / ".." / "blobs" / path.name)
    before = snapshot(real)
    grown = execute(job_of(snapshots), tmp_path / "grown")
    assert not any(path.is_symlink() for path in grown.rglob("*"))
    assert snapshot(real) == before


class TestRefusals:
    def test_existing_output(self, make_ltx: Maker, tmp_path: Path) -> None:
        (tmp_path / "grown").mkdir()
        (tmp_path / "grown" / "precious").write_text("x")
        job = job_of(make_ltx())
        with pytest.raises(OutputError, match="exists already"):
            execute(job, tmp_path / "grown")
        assert snapshot(tmp_path / "grown").keys() == {"precious"}
        execute(job, tmp_path / "grown", overwrite=True)
        assert "precious" not in snapshot(tmp_path / "grown")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "grown"]

    @pytest.mark.parametrize("place", ["work", "home", "."])
    def test_the_folder_where_one_works_is_not_replaced(
        self, make_ltx: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        job = job_of(make_ltx())
        for name in ("work", "home"):
            (tmp_path / "all" / name).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "all" / "work")
        monkeypatch.setenv("HOME", str(tmp_path / "all" / "home"))
        with pytest.raises(OutputError, match="holds the folder where you work, or your own"):
            execute(job, tmp_path / "all" / place, overwrite=True)
        assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["home", "work"]

    @pytest.mark.parametrize("place", ["base", "base/inside", "."])
    def test_output_that_touches_the_input(self, make_ltx: Maker, tmp_path: Path, place: str) -> None:
        base = make_ltx()
        before = snapshot(tmp_path)
        with pytest.raises(OutputError, match="never written to"):
            execute(job_of(base), tmp_path / place, overwrite=True)
        assert snapshot(tmp_path) == before
        assert base.is_dir()

    def test_input_reached_through_a_link(self, make_ltx: Maker, tmp_path: Path) -> None:
        base = make_ltx()
        (tmp_path / "link").symlink_to(base)
        with pytest.raises(OutputError, match="never written to"):
            execute(job_of(base), tmp_path / "link", overwrite=True)

    def test_no_room(self, make_ltx: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
        with pytest.raises(OutputError, match="the disk has 10 bytes free"):
            execute(job_of(make_ltx()), tmp_path / "deep" / "grown")
        assert [path.name for path in tmp_path.iterdir()] == ["base"]


class TestNothingHalfWritten:
    def assert_clean(self, folder: Path) -> None:
        assert sorted(path.name for path in folder.iterdir()) == ["base"]

    def test_full_disk(self, make_ltx: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        job, calls = job_of(make_ltx(shards=3)), []

        def full(*args: Any) -> int:
            calls.append(args)
            if len(calls) > 5:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)

        real = os.copy_file_range
        monkeypatch.setattr(os, "copy_file_range", full)
        with pytest.raises(OutputError, match="the disk is full"):
            execute(job, tmp_path / "new" / "grown")
        self.assert_clean(tmp_path)

    def test_bytes_that_do_not_read_back(
        self, make_ltx: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One byte of one tensor goes wrong between the source and the disk."""
        job, move, places = job_of(make_ltx(depth=30)), Mover.move, set[int]()

        def flip(self: Mover, reader: int, start: int, writer: int, position: int, count: int) -> None:
            move(self, reader, start, writer, position, count)
            if not places:
                places.add(position)
                byte = os.pread(writer, 1, position + count - 1)
                os.pwrite(writer, bytes([byte[0] ^ 1]), position + count - 1)

        monkeypatch.setattr(Mover, "move", flip)
        with pytest.raises(CheckpointError, match="do not read back as they are in the source"):
            execute(job, tmp_path / "grown")
        assert places
        self.assert_clean(tmp_path)

    def test_input_that_shrinks_after_it_was_opened(self, make_ltx: Maker, tmp_path: Path) -> None:
        base = make_ltx()
        job = job_of(base)
        weights = base / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-40])
        with pytest.raises(CheckpointError, match="cut short"):
            execute(job, tmp_path / "grown")
        self.assert_clean(tmp_path)

    def test_input_with_another_header_than_when_it_was_opened(self, make_ltx: Maker, tmp_path: Path) -> None:
        base = make_ltx()
        job = job_of(base)
        shutil.copy(make_ltx("other", depth=4) / "diffusion_pytorch_model.safetensors", base)
        with pytest.raises(CheckpointError, match="changed since it was opened"):
            execute(job, tmp_path / "grown")
        assert not (tmp_path / "grown").exists()

    @pytest.mark.parametrize("workers", [1, 2])
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda path: os.truncate(path, 700), "became shorter"),
            (lambda path: os.utime(path, ns=(1, 1)), "changed while it was read"),
            (lambda path: path.rename(path.with_suffix(".gone")), "can't be read"),
            (
                lambda path: (path.rename(path.with_suffix(".old")), shutil.copy2(path.with_suffix(".old"), path)),
                "changed",
            ),
        ],
        ids=["truncated", "touched", "removed", "replaced by a copy"],
    )
    def test_input_that_changes_while_it_is_read(
        self, make_ltx: Maker, tmp_path: Path, change: Callable[[Path], object], message: str, workers: int
    ) -> None:
        base = make_ltx()
        job, calls = job_of(base), list[int]()

        def progress(count: int) -> None:
            calls.append(count)
            if len(calls) == 8:
                change(base / "diffusion_pytorch_model.safetensors")

        with pytest.raises(CheckpointError, match=message):
            execute(job, tmp_path / "grown", progress=progress, workers=workers)
        assert len(calls) >= 8
        self.assert_clean(tmp_path)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
    def test_killed_in_the_middle(self, make_ltx: Maker, tmp_path: Path, number: signal.Signals) -> None:
        """Whatever the signal, the final name does not appear."""
        base = make_ltx(shards=3)
        code = (
            "import os, sys\n"
            "from pathlib import Path\n"
            "from modelgrow.surgery import ExpandOptions, execute, open_source, plan_expand, prepare\n"
            "job = prepare(open_source(sys.argv[1]), lambda c, a: plan_expand(c, a, ExpandOptions(mode='insert')))\n"
            f"execute(job, Path(sys.argv[2]), progress=lambda count: os.kill(os.getpid(), {int(number)}))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(base), str(tmp_path / "grown")], capture_output=True, check=False
        )
        assert done.returncode != 0
        assert not (tmp_path / "grown").exists()
        left = [path.name for path in tmp_path.iterdir() if path.name != "base"]
        assert all(name.startswith(".grown.partial-") for name in left)
        if number != signal.SIGKILL:
            assert left == []


def test_fingerprint_is_of_the_weights_not_of_the_files(make_ltx: Maker) -> None:
    one, three = open_checkpoint(make_ltx("one")), open_checkpoint(make_ltx("three", shards=3))
    assert fingerprint_of(one) == fingerprint_of(three)
    weights = three.files[0]
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(bytes(damaged))
    assert fingerprint_of(open_checkpoint(three.path)) != fingerprint_of(one)
