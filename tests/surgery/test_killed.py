"""A run that is killed at any moment leaves the output absent or complete, the input alone, and no trace for long."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from growths import job_of, snapshot

from modelgrow.surgery import OutputError, execute
from modelgrow.surgery import staging as staging_module
from modelgrow.surgery.staging import staged, staged_file

Maker = Callable[..., Path]
GROW = """\
import sys
from pathlib import Path
from modelgrow.surgery import ExpandOptions, execute, open_source, plan_expand, prepare
base, output, workers, overwrite = sys.argv[1:]
job = prepare(open_source(base), lambda c, a: plan_expand(c, a, ExpandOptions(mode="insert")))
print("ready", flush=True)
execute(job, Path(output), workers=int(workers), overwrite=overwrite == "yes")
"""
LEFTOVER = re.compile(r"\.grown\.partial-[a-z0-9_]{8}")


def start(base: Path, output: Path, *, workers: int = 2, overwrite: bool = False) -> subprocess.Popen[str]:
    """Another process that grows `base`; it returns when that process begins to write."""
    code = [sys.executable, "-P", "-c", GROW, str(base), str(output), str(workers), "yes" if overwrite else "no"]
    process = subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def heavy(make_ltx: Maker) -> Path:
    """10 MB in 3 shards: to write it takes long enough to be killed in the middle."""
    return make_ltx(shards=3, depth=12, width=320)


def duration(base: Path, output: Path) -> float:
    process, began = start(base, output), time.monotonic()
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    return time.monotonic() - began


def kill_many_times(base: Path, folder: Path, times: int, *, overwrite: bool) -> None:
    output, before = folder / "grown", snapshot(base)
    lasts = duration(base, output)
    complete, rng = snapshot(output), random.Random(times)
    other = {"precious": hashlib.sha256(b"x").hexdigest()}
    ends: list[bool] = []
    for i in range(times):
        shutil.rmtree(output, ignore_errors=True)
        if overwrite:
            output.mkdir()
            (output / "precious").write_text("x")
        process = start(base, output, workers=1 + i % 2, overwrite=overwrite)
        if i:  # the first at once: where the machine was busy only before, all others would come too late
            time.sleep(1.1 * lasts * (i + rng.random()) / times)
        process.kill()
        process.communicate()
        found = snapshot(output) if output.exists() else None
        assert found in ([other, complete] if overwrite else [None, complete])
        assert snapshot(base) == before
        left = [path.name for path in folder.iterdir() if path not in (base, output)]
        assert len(left) <= 1
        assert all(LEFTOVER.fullmatch(name) for name in left)
        ends.append(found == complete)
    assert not all(ends)
    execute(job_of(base), output, overwrite=True)
    assert snapshot(output) == complete
    assert sorted(path.name for path in folder.iterdir()) == [base.name, "grown"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_at_moments_all_over_its_run(heavy: Path, tmp_path: Path, overwrite: bool) -> None:
    kill_many_times(heavy, tmp_path, 12, overwrite=overwrite)


@pytest.mark.long
@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_two_hundred_times(heavy: Path, tmp_path: Path, overwrite: bool) -> None:
    kill_many_times(heavy, tmp_path, 100, overwrite=overwrite)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_asked_to_end_it_leaves_nothing(heavy: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = start(heavy, tmp_path / "grown")
    while not any(LEFTOVER.fullmatch(path.name) for path in tmp_path.iterdir()):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (-number if number == signal.SIGINT else 128 + number)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


class TestLeftovers:
    def leftover(self, folder: Path, name: str = ".grown.partial-abcd1234") -> Path:
        left = folder / name
        (left / "output").mkdir(parents=True)
        (left / "output" / "half.safetensors").write_text("half")
        (left / "lock").touch()
        return left

    def test_a_dead_one_goes_and_a_live_one_stays(self, make_ltx: Maker, tmp_path: Path) -> None:
        base = make_ltx()
        dead, live = self.leftover(tmp_path), self.leftover(tmp_path, ".grown.partial-live0000")
        with (live / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            execute(job_of(base), tmp_path / "grown")
            assert not dead.exists()
            assert (live / "output" / "half.safetensors").read_text() == "half"
        execute(job_of(base), tmp_path / "grown", overwrite=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "grown"]

    @pytest.mark.parametrize(
        "name",
        [".other.partial-abcd1234", ".grown.partial-abc", ".grown.partial-abcd1234.keep", "grown.partial-abcd1234"],
    )
    def test_what_is_not_of_this_output_stays(self, make_ltx: Maker, tmp_path: Path, name: str) -> None:
        left = self.leftover(tmp_path, name)
        execute(job_of(make_ltx()), tmp_path / "grown")
        assert snapshot(left).keys() == {"lock", "output/half.safetensors"}

    def test_a_link_is_not_followed(self, make_ltx: Maker, tmp_path: Path) -> None:
        real = self.leftover(tmp_path, "precious")
        (tmp_path / ".grown.partial-abcd1234").symlink_to(real)
        execute(job_of(make_ltx()), tmp_path / "grown")
        assert snapshot(real).keys() == {"lock", "output/half.safetensors"}

    def test_a_failed_run_removes_them_too(self, make_ltx: Maker, tmp_path: Path) -> None:
        self.leftover(tmp_path)
        (tmp_path / "grown").mkdir()
        with pytest.raises(OutputError, match="exists already"):
            execute(job_of(make_ltx()), tmp_path / "grown")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "grown"]

    def test_a_replaced_output_is_put_back(self, make_ltx: Maker, tmp_path: Path) -> None:
        """Killed between the two renames of a system that can't exchange names."""
        left = self.leftover(tmp_path)
        (left / "replaced").mkdir()
        (left / "replaced" / "precious").write_text("x")
        with pytest.raises(OutputError, match="exists already"):
            execute(job_of(make_ltx()), tmp_path / "grown")
        assert snapshot(tmp_path / "grown").keys() == {"precious"}

    def test_without_locks_nothing_is_removed(
        self, make_ltx: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = self.leftover(tmp_path)

        def no_locks(*args: object) -> None:
            raise OSError(37, "No locks available")

        monkeypatch.setattr("fcntl.flock", no_locks)
        execute(job_of(make_ltx()), tmp_path / "grown")
        assert left.exists()
        assert (tmp_path / "grown" / "growth.json").is_file()


class TestOverwrite:
    @pytest.mark.parametrize("can_swap", [True, False])
    def test_the_old_output_goes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_swap: bool) -> None:
        if not can_swap:
            monkeypatch.setattr(staging_module, "swap", lambda first, second: False)
        output = tmp_path / "out"
        output.mkdir()
        (output / "old").write_text("old")
        with staged(output, inputs=[], overwrite=True) as work:
            (work / "new").write_text("new")
            assert (output / "old").read_text() == "old"
        assert snapshot(tmp_path).keys() == {"out/new"}

    @pytest.mark.parametrize("can_swap", [True, False])
    def test_a_failure_at_the_last_step_keeps_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_swap: bool
    ) -> None:
        def fail(*args: object) -> bool:
            raise OSError(5, "Input/output error")

        def fail_for_new(self: Path, target: Path) -> Path:
            if self.name == "output":
                fail()
            return rename(self, target)

        rename = Path.rename
        if can_swap:
            monkeypatch.setattr(staging_module, "swap", fail)
        else:
            monkeypatch.setattr(staging_module, "swap", lambda first, second: False)
            monkeypatch.setattr(Path, "rename", fail_for_new)
        output = tmp_path / "out"
        output.mkdir()
        (output / "old").write_text("old")
        with pytest.raises(OutputError, match="Input/output error"), staged(output, inputs=[], overwrite=True):
            pass
        assert snapshot(tmp_path).keys() == {"out/old"}

    def test_a_link_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "precious").write_text("x")
        (tmp_path / "out").symlink_to("real")
        with staged(tmp_path / "out", inputs=[], overwrite=True) as work:
            (work / "new").write_text("new")
        assert not (tmp_path / "out").is_symlink()
        assert snapshot(tmp_path).keys() == {"out/new", "real/precious"}

    def test_somebody_else_was_faster(self, tmp_path: Path) -> None:
        def write() -> None:
            with staged(tmp_path / "out", inputs=[]) as work:
                (work / "new").write_text("new")
                (tmp_path / "out").mkdir()
                (tmp_path / "out" / "theirs").write_text("x")

        with pytest.raises(OutputError, match="in the meantime"):
            write()
        assert snapshot(tmp_path).keys() == {"out/theirs"}

    def test_one_file(self, tmp_path: Path) -> None:
        output = tmp_path / "deep" / "growth.safetensors"

        def fail() -> None:
            with staged_file(output, inputs=[]) as path:
                path.write_text("half")
                raise OutputError("full")

        with pytest.raises(OutputError, match="full"):
            fail()
        assert list(tmp_path.iterdir()) == []
        for text in ("one", "two"):
            with staged_file(output, inputs=[], overwrite=True) as path:
                path.write_text(text)
                assert not output.exists() or output.read_text() == "one"
        assert output.read_text() == "two"
        assert list(output.parent.iterdir()) == [output]


class TestSignals:
    def test_handlers_are_put_back(self, tmp_path: Path) -> None:
        before = signal.getsignal(signal.SIGTERM)
        with staged(tmp_path / "out", inputs=[]):
            assert signal.getsignal(signal.SIGTERM) is not before
        assert signal.getsignal(signal.SIGTERM) is before

    def test_a_signal_waits_until_the_folder_is_noted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make = tempfile.mkdtemp

        def interrupted(*args: str, **options: str) -> str:
            folder = make(*args, **options)
            signal.raise_signal(signal.SIGINT)
            return folder

        monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
        with pytest.raises(KeyboardInterrupt), staged(tmp_path / "deep" / "out", inputs=[]):
            pytest.fail("the block began")
        assert list(tmp_path.iterdir()) == []

    def test_a_handler_of_the_callers_stays(self, tmp_path: Path) -> None:
        def mine(number: int, frame: FrameType | None) -> None: ...

        before = signal.signal(signal.SIGTERM, mine)
        try:
            with staged(tmp_path / "out", inputs=[]):
                assert signal.getsignal(signal.SIGTERM) is mine
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_other_threads_may_write_too(self, tmp_path: Path) -> None:
        def write() -> None:
            with staged(tmp_path / "out", inputs=[]) as work:
                (work / "file").touch()

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        assert snapshot(tmp_path).keys() == {"out/file"}


def test_the_output_is_as_readable_as_other_files(make_ltx: Maker, tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        grown = execute(job_of(make_ltx(shards=2)), tmp_path / "grown")
    finally:
        os.umask(mask)
    assert oct(grown.stat().st_mode & 0o777) == "0o750"
    assert {oct(path.stat().st_mode & 0o777) for path in grown.iterdir()} == {"0o640"}
