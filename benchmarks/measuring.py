"""What a command costs: wall time, processor time, the most memory it had."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_ENOUGH_FREE = 600 << 20
_STEP = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run. `peak` is resident memory with mapped files, `anonymous` without them; bytes."""

    wall: float
    cpu: float
    peak: int
    anonymous: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Several runs of one command."""

    samples: tuple[Sample, ...]

    @property
    def wall(self) -> float:
        return median(sample.wall for sample in self.samples)

    @property
    def best(self) -> float:
        return min(sample.wall for sample in self.samples)

    @property
    def cpu(self) -> float:
        return median(sample.cpu for sample in self.samples)

    @property
    def peak(self) -> int:
        return max(sample.peak for sample in self.samples)

    @property
    def anonymous(self) -> int:
        return max(sample.anonymous for sample in self.samples)


def measure(command: Sequence[str]) -> Sample:
    """Run a command to its end. Raises `RuntimeError` with what it said, if it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=_environment())
        peak = anonymous = number = 0
        while not number:
            memory = _memory(process.pid)
            peak = max(peak, memory.get("VmHWM", 0))
            anonymous = max(anonymous, memory.get("RssAnon", 0))
            time.sleep(0.004)
            number, status, usage = os.wait4(process.pid, os.WNOHANG)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{said.read().decode(errors='replace')[-2000:]}")
    return Sample(wall=wall, cpu=usage.ru_utime + usage.ru_stime, peak=peak, anonymous=anonymous)


def _environment() -> dict[str, str]:
    """Ours, but programs start from bytecode, as those that pip installed do."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _memory(number: int) -> dict[str, int]:
    """Lines in kB of /proc/PID/status, in bytes; none where there is no /proc."""
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in fields}


def warm(folder: Path) -> None:
    """Read a folder's files, so that they are in memory for whoever comes next."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(8 << 20):
                    pass


class Filler:
    """Fills free memory with clean cache, from a file that is one hole.

    A virtual machine may hand freed memory back to its host, and getting it again costs a second or
    two per GB: the first command after a large deletion would pay for it, and it is not that command's cost.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "hole"
        self._position = 0
        with self._path.open("wb") as file:
            file.truncate(4 << 40)

    def fill(self) -> None:
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._position)
            for _ in range((_free() - _ENOUGH_FREE) // _STEP):  # once over: the kernel may keep more free than that
                file.read(_STEP)
            self._position = file.tell()


def _free() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemFree"))
