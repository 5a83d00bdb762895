"""On real filesystems, where they may be mounted: one that clones, one that is full."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from growths import job_of, snapshot

from modelgrow.surgery import OutputError, execute
from modelgrow.surgery.checkpoint import open_checkpoint
from modelgrow.surgery.move import can_clone
from modelgrow.surgery.readback import read_chunks

Maker = Callable[..., Path]


def run(*command: str) -> None:
    """A command that may not be allowed here."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{command[0]} is not allowed here: {done.stderr.strip()[:80]}")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`mounted("-t", "tmpfs", ...)`: a folder where that is mounted; skips where one may not."""
    if os.getuid() != 0:
        pytest.skip("only root may mount")
    place = tmp_path / "mounted"
    place.mkdir()
    mounts: list[Path] = []

    def mount(*options: str) -> Path:
        run("mount", *options, str(place))
        mounts.append(place)
        return place

    yield mount
    for folder in mounts:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(mounted: Callable[..., Path]) -> Path:
    """8 MiB."""
    return mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs")


@pytest.fixture
def xfs(mounted: Callable[..., Path], tmp_path: Path) -> Path:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    run("mkfs.xfs", "-q", "-m", "reflink=1", str(image))
    return mounted("-o", "loop", str(image))


class TestFullDisk:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_it_fills_up_while_it_is_written(
        self, make_ltx: Maker, small_disk: Path, monkeypatch: pytest.MonkeyPatch, workers: int
    ) -> None:
        base = make_ltx(depth=12, width=320, shards=3)
        before = snapshot(base)
        with pytest.raises(OutputError, match=r"needs 12\.4 MB, the disk has 8\.39 MB free"):
            execute(job_of(base, "insert"), small_disk / "grown", workers=workers)
        monkeypatch.setattr("modelgrow.surgery.job.check_room", lambda output, num_bytes: None)
        with pytest.raises(OutputError, match="the disk is full"):
            execute(job_of(base, "insert"), small_disk / "deep" / "grown", workers=workers)
        assert list(small_disk.iterdir()) == []
        assert snapshot(base) == before

    def test_what_fits_goes_from_one_filesystem_to_another(
        self, make_ltx: Maker, small_disk: Path, tmp_path: Path
    ) -> None:
        job = job_of(make_ltx(depth=6, width=160, shards=3), "suffix")
        there = execute(job, small_disk / "grown", link=True, checksum=True)
        assert snapshot(there) == snapshot(execute(job, tmp_path / "grown", checksum=True))


class TestClones:
    """The rest is tested without a filesystem that clones; that it clones needs one."""

    @staticmethod
    def used(folder: Path) -> int:
        subprocess.run(["sync", "-f", str(folder)], check=True)
        return shutil.disk_usage(folder).used

    @pytest.mark.parametrize("mode", ["insert", "suffix"])
    @pytest.mark.parametrize(("shards", "width"), [(1, 512), (3, 512), (1, 640)])
    def test_growth_takes_next_to_no_room(
        self, make_ltx: Maker, xfs: Path, tmp_path: Path, mode: str, shards: int, width: int
    ) -> None:
        """25 MB of blocks, whose biases of 2048 or 2560 bytes shift what comes after them."""
        base = xfs / "base"
        shutil.copytree(make_ltx("plain", depth=12, width=width, shards=shards), base)
        assert can_clone(next(base.glob("*.safetensors")), xfs)
        before, used = snapshot(base), self.used(xfs)
        done: list[int] = []
        job = job_of(base, mode)
        grown = execute(job, xfs / "grown", progress=done.append)
        taken = self.used(xfs) - used
        assert sum(done) == job.work_bytes
        assert snapshot(base) == before
        assert snapshot(grown) == snapshot(execute(job, tmp_path / "copied"))
        assert sum(path.stat().st_size for path in grown.iterdir()) > 25_000_000
        assert taken < 3_000_000

    def test_a_clone_is_not_the_same_file(self, make_ltx: Maker, xfs: Path) -> None:
        base = xfs / "base"
        shutil.copytree(make_ltx("plain", depth=2, width=512), base)
        before = snapshot(base)
        grown = execute(job_of(base, "suffix"), xfs / "grown")
        (weights,) = grown.glob("*.safetensors")
        weights.write_bytes(bytes(weights.stat().st_size))
        assert snapshot(base) == before
        tensors = open_checkpoint(base).tensors
        assert any(any(b"".join(read_chunks(tensor))) for tensor in tensors.values())

    def test_clones_need_no_free_room(self, make_ltx: Maker, xfs: Path) -> None:
        base = xfs / "base"
        shutil.copytree(make_ltx("plain", depth=12, width=1024), base)  # 100 MB, twice that when grown
        self.used(xfs)
        free = shutil.disk_usage(xfs).free
        with (xfs / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - 20_000_000)
        grown = execute(job_of(base, "insert"), xfs / "grown")
        assert sum(path.stat().st_size for path in grown.iterdir()) > 190_000_000 > shutil.disk_usage(xfs).free
