"""Files made by the writer: every content, every way, one worker or several; links, digests, full disks."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from growths import job_of, snapshot

from modelgrow.surgery import (
    CheckpointError,
    Copy,
    OutputError,
    PlannedTensor,
    Tensor,
    Values,
    Zeros,
    execute,
)
from modelgrow.surgery import write as write_module
from modelgrow.surgery.apply import write_tensors
from modelgrow.surgery.content import Content, Piece, Pieces
from modelgrow.surgery.header import read_header, write_header
from modelgrow.surgery.layout import OutputFile, output_file
from modelgrow.surgery.move import BLOCK, CHUNK
from modelgrow.surgery.segments import Segment
from modelgrow.surgery.write import FileWork, Writer

Maker = Callable[..., Path]
WAYS = {
    "in the kernel": (),
    "sendfile": ("copy_file_range",),
    "through memory": ("copy_file_range", "sendfile"),
}
ROWS, WIDTH = 1500, 999
"""Rows of 1998 bytes: nothing ends where a block or a chunk does; 3 MB a tensor."""


def refuse(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], number: int = errno.EXDEV) -> None:
    def call(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    for name in names:
        monkeypatch.setattr(os, name, call)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Tensor]:
    """Two files with a tensor each."""
    found: dict[str, Tensor] = {}
    for name in ("v", "w"):
        data, path = random.Random(name).randbytes(ROWS * WIDTH * 2), tmp_path / f"{name}.safetensors"
        path.write_bytes(write_header({name: ("BF16", (ROWS, WIDTH), len(data))}, {}) + data)
        found |= read_header(path).tensors
    return found


def file_of(sources: dict[str, Tensor]) -> tuple[OutputFile, dict[str, bytes]]:
    """A file with every kind of content, and what each tensor should hold."""
    row = 2 * WIDTH
    raw = {name: t.file.read_bytes()[t.offset :] for name, t in sources.items()}
    values = random.Random(3).randbytes(ROWS * row)
    pieces = (
        Piece(source="w", start=7, stop=1207),
        Piece(source=None, start=0, stop=93),
        Piece(source="v", start=0, stop=1),
        Piece(source="v", start=1294, stop=1500),
    )
    contents: dict[str, tuple[Content, bytes]] = {
        "copy": (Copy(source="w"), raw["w"]),
        "zeros": (Zeros(), bytes(ROWS * row)),
        "values": (Values(data=values), values),
        "pieces": (
            Pieces(parts=pieces),
            raw["w"][7 * row : 1207 * row] + bytes(93 * row) + raw["v"][:row] + raw["v"][1294 * row :],
        ),
        "again": (Copy(source="v"), raw["v"]),
        "end": (Zeros(), bytes(ROWS * row)),
    }
    tensors = [
        PlannedTensor(name=name, dtype="BF16", shape=(ROWS, WIDTH), content=content, is_new=True)
        for name, (content, _) in contents.items()
    ]
    file = output_file("any", tensors, {"format": "pt"}, sources)
    return file, {name: data for name, (_, data) in contents.items()}


@pytest.mark.parametrize("way", WAYS)
def test_every_content_is_written_exactly(
    sources: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    file, wanted = file_of(sources)
    done: list[int] = []
    refuse(monkeypatch, WAYS[way])
    write_tensors(tmp_path / "out.safetensors", file, sources, done.append)
    written = (tmp_path / "out.safetensors").read_bytes()
    tensors = read_header(tmp_path / "out.safetensors").tensors
    assert {n: written[t.offset : t.offset + t.nbytes] for n, t in tensors.items()} == wanted
    assert sum(done) == 2 * file.num_bytes == 2 * len(written)


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("digests", [False, True])
def test_workers_and_digests(
    sources: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, digests: bool
) -> None:
    monkeypatch.setattr(write_module, "_MIN_SPAN", 1 << 20)
    file, _ = file_of(sources)
    write_tensors(tmp_path / "one", file, sources, lambda count: None)
    writer, done = Writer(workers=workers, digests=digests), list[int]()
    writer._progress = done.append
    works = [FileWork(path=tmp_path / f"out{i}", segments=tuple(file.segments(sources))) for i in range(3)]
    writer.make(works)
    wanted = hashlib.sha256((tmp_path / "one").read_bytes()).hexdigest()
    assert {hashlib.sha256(work.path.read_bytes()).hexdigest() for work in works} == {wanted}
    assert writer.digests == ({work.path: wanted for work in works} if digests else {})
    assert sum(done) == 6 * file.num_bytes


def test_zeros_are_holes(tmp_path: Path) -> None:
    tensor = PlannedTensor(name="zeros", dtype="U8", shape=(8 << 20,), content=Zeros(), is_new=True)
    write_tensors(tmp_path / "out", output_file("any", [tensor], {}, {}), {}, lambda count: None)
    status = (tmp_path / "out").stat()
    assert status.st_size > 8 << 20
    assert status.st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("where", [0, 1, CHUNK, 2 * CHUNK + 5, 3 * CHUNK + 99])
@pytest.mark.parametrize("kind", ["source", "data"])
def test_one_wrong_bit_is_found_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, where: int
) -> None:
    data = os.urandom(3 * CHUNK + 100)
    (tmp_path / "source").write_bytes(data)
    segment = {
        "source": Segment(position=0, nbytes=len(data), source=tmp_path / "source"),
        "data": Segment(position=0, nbytes=len(data), data=data),
    }[kind]
    target, calls = tmp_path / "target", list[int]()

    def damage(count: int) -> None:
        calls.append(count)
        if len(calls) == 2 * (where // CHUNK) + 1:  # the chunk that holds it is written and not yet compared
            with target.open("r+b") as file:
                file.seek(where)
                old = file.read(1)
                file.seek(where)
                file.write(bytes([old[0] ^ 16]))

    with pytest.raises(CheckpointError, match="do not read back"):
        Writer(workers=1, progress=damage).make([FileWork(path=target, segments=(segment,))])


@pytest.mark.parametrize("where", [0, 1, BLOCK, 2 * CHUNK + 5, 3 * CHUNK + 99])
@pytest.mark.parametrize("offset", [0, 7])
def test_one_wrong_bit_among_zeros_is_found(tmp_path: Path, where: int, offset: int) -> None:
    first = Segment(position=0, nbytes=BLOCK + offset, data=os.urandom(BLOCK + offset))
    zeros = Segment(position=first.end, nbytes=3 * CHUNK + 100)
    target = tmp_path / "target"

    def damage(count: int) -> None:
        with target.open("r+b") as file:
            file.seek(zeros.position + where)
            file.write(b"\x10")

    with pytest.raises(CheckpointError, match="do not read back"):
        Writer(workers=1, progress=damage).make([FileWork(path=target, segments=(first, zeros))])


def test_a_failure_stops_the_other_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_module, "_MIN_SPAN", CHUNK)
    total, done = 200 * CHUNK, [0]
    (tmp_path / "source").write_bytes(bytes(total))
    whole = Segment(position=0, nbytes=total, source=tmp_path / "source")

    def progress(count: int) -> None:
        done[0] += count
        if done[0] > 4 * CHUNK:
            raise OutputError("enough")

    with pytest.raises(OutputError, match="enough"):
        Writer(workers=2, progress=progress).make([FileWork(path=tmp_path / "out", segments=(whole,))])
    assert done[0] < 20 * CHUNK


class TestLinks:
    def inodes(self, folder: Path) -> set[int]:
        return {path.stat().st_ino for path in folder.rglob("*") if path.is_file()}

    def test_files_that_stay_are_linked(self, make_ltx: Maker, tmp_path: Path) -> None:
        base = make_ltx(shards=3)
        before = snapshot(base)
        linked = execute(job_of(base, "suffix", blocks=1), tmp_path / "linked", link=True)
        copied = execute(job_of(base, "suffix", blocks=1), tmp_path / "copied")
        assert snapshot(linked) == snapshot(copied)
        assert not self.inodes(copied) & self.inodes(base)
        shared = {path.name for path in linked.iterdir() if path.stat().st_ino in self.inodes(base)}
        assert shared == {f"diffusion_pytorch_model-0000{i}-of-00004.safetensors" for i in (1, 2, 3)}
        for i in (1, 2, 3):
            old = base / f"diffusion_pytorch_model-0000{i}-of-00003.safetensors"
            assert (linked / f"diffusion_pytorch_model-0000{i}-of-00004.safetensors").samefile(old)
        shutil.rmtree(linked)
        assert snapshot(base) == before

    def test_files_that_change_are_not(self, make_ltx: Maker, tmp_path: Path) -> None:
        base = make_ltx(shards=3)
        grown = execute(job_of(base, "insert"), tmp_path / "grown", link=True)
        assert not self.inodes(grown) & self.inodes(base)

    def test_other_files_are_where_they_are_large(self, make_pipeline: Callable[[], Path], tmp_path: Path) -> None:
        """Below 1 MiB they are configs and cards, which people edit in place."""
        base = make_pipeline()
        (base / "vae" / "large.bin").write_bytes(bytes(1 << 20))
        (base / "vae" / "small.bin").write_bytes(bytes((1 << 20) - 1))
        grown = execute(job_of(base, "insert"), tmp_path / "grown", link=True)
        assert {path.name for path in grown.rglob("*") if path.is_file() and path.stat().st_nlink > 1} == {"large.bin"}

    def test_a_link_into_the_hubs_cache_is_to_the_blob(self, make_ltx: Maker, tmp_path: Path) -> None:
        base = make_ltx("models--a--b/blobs", shards=3)
        snapshots = tmp_path / "models--a--b" / "snapshots" / "rev"
        snapshots.mkdir(parents=True)
        for path in base.iterdir():
            (snapshots / path.name).symlink_to(Path("..") / ".." / "blobs" / path.name)
        before = snapshot(base)
        grown = execute(job_of(snapshots, "suffix", blocks=1), tmp_path / "grown", link=True)
        assert not any(path.is_symlink() for path in grown.iterdir())
        assert len(self.inodes(grown) & self.inodes(base)) == 3
        shutil.rmtree(snapshots)
        assert snapshot(base) == before
        assert (grown / "README.md").read_text() == "carried along"

    @pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
    def test_what_can_not_be_linked_is_copied(
        self, make_ltx: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        base = make_ltx(shards=3)
        refuse(monkeypatch, ("link",), number)
        grown = execute(job_of(base, "suffix", blocks=1), tmp_path / "grown", link=True)
        assert not self.inodes(grown) & self.inodes(base)
        assert snapshot(grown) == snapshot(execute(job_of(base, "suffix", blocks=1), tmp_path / "copied"))

    def test_links_take_no_room(self, make_ltx: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """20 MB, and 10 are free: too little for a copy."""
        job = job_of(make_ltx(shards=3, depth=24, width=320), "suffix", blocks=1)
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10_000_000))
        assert job.num_bytes > 20_000_000
        with pytest.raises(OutputError, match="needs 20 MB, the disk has 10 MB free"):
            execute(job, tmp_path / "grown")
        execute(job, tmp_path / "grown", link=True)


class TestProgress:
    @pytest.mark.parametrize("options", [{}, {"link": True}, {"checksum": True}, {"workers": 1}])
    @pytest.mark.parametrize("mode", ["insert", "suffix"])
    def test_the_bar_ends_at_its_end(
        self, make_pipeline: Callable[[], Path], tmp_path: Path, mode: str, options: dict[str, Any]
    ) -> None:
        job, done = job_of(make_pipeline(), mode), list[int]()
        execute(job, tmp_path / "grown", progress=done.append, **options)
        assert sum(done) == job.work_bytes
        assert min(done) >= 0


class TestChecksums:
    @pytest.mark.parametrize("options", [{}, {"link": True}, {"workers": 3}])
    def test_every_file_is_listed(
        self, make_pipeline: Callable[[], Path], tmp_path: Path, options: dict[str, Any]
    ) -> None:
        base = make_pipeline()
        (base / "odd\\name\n.txt").write_text("x")
        (base / "checksums.sha256").write_text("of the base")
        grown = execute(job_of(base, "suffix"), tmp_path / "grown", checksum=True, **options)
        files = snapshot(grown)
        del files["checksums.sha256"]
        odd = files.pop("odd\\name\n.txt")
        lines = (grown / "checksums.sha256").read_text().splitlines()
        assert f"\\{odd}  odd\\\\name\\n.txt" in lines
        assert set(lines) - {f"\\{odd}  odd\\\\name\\n.txt"} == {f"{digest}  {name}" for name, digest in files.items()}
        assert len(lines) == len(files) + 1
        if shutil.which("sha256sum"):
            subprocess.run(["sha256sum", "--check", "--strict", "checksums.sha256"], cwd=grown, check=True)

    def test_those_of_the_base_are_not_carried(self, make_ltx: Maker, tmp_path: Path) -> None:
        base = make_ltx()
        (base / "checksums.sha256").write_text("of the base")
        assert "checksums.sha256" not in snapshot(execute(job_of(base), tmp_path / "grown"))


class TestFullDisk:
    @pytest.fixture
    def base(self, make_pipeline: Callable[[], Path]) -> Iterator[Path]:
        folder = make_pipeline()
        before = snapshot(folder)
        yield folder
        assert snapshot(folder) == before

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    @pytest.mark.parametrize(
        ("name", "nth"),
        [
            *((name, nth) for name in ("open", "ftruncate", "copy_file_range", "fsync", "mkdir") for nth in (1, 3)),
            *((name, 3) for name in ("sendfile", "pwrite", "preadv")),
            ("link", 2),
            ("rename", 1),
        ],
    )
    @pytest.mark.parametrize("workers", [1, 2])
    def test_at_any_call(
        self,
        base: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        nth: int,
        number: int,
        workers: int,
    ) -> None:
        job, real, calls = job_of(base, "suffix"), getattr(os, name), list[object]()
        if name in ("sendfile", "pwrite"):
            refuse(monkeypatch, ("copy_file_range", "sendfile") if name == "pwrite" else ("copy_file_range",))

        def full(*args: object, **options: object) -> object:
            writes = name != "open" or (isinstance(args[1], int) and bool(args[1] & os.O_EXCL))
            if writes:
                calls.append(args)
            if writes and len(calls) >= nth:
                raise OSError(number, os.strerror(number))
            return real(*args, **options)

        monkeypatch.setattr(os, name, full)
        try:
            with pytest.raises(OutputError, match="the disk is full"):
                execute(job, tmp_path / "new" / "grown", workers=workers, link=name == "link")
        finally:
            monkeypatch.undo()
        assert [path.name for path in tmp_path.iterdir()] == [base.name]

    @pytest.mark.parametrize("call", ["mkdir", "open", "rename"])
    def test_a_folder_that_can_not_be_written(
        self, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        (tmp_path / "place").mkdir()
        real = getattr(os, call)

        def denied(path: object, *args: object, **options: object) -> object:
            makes = call != "open" or (isinstance(args[0], int) and bool(args[0] & os.O_CREAT))
            if "place" in str(path) and makes:
                raise OSError(errno.EACCES, "Permission denied")
            return real(path, *args, **options)

        monkeypatch.setattr(os, call, denied)
        with pytest.raises(OutputError, match=r"grown.*: can't be written: Permission denied"):
            execute(job_of(base), tmp_path / "place" / "grown")
        monkeypatch.undo()
        assert list((tmp_path / "place").iterdir()) == []
