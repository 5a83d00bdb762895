"""Make a virtual environment that runs modelgrow: `python3 .ci/environment.py .venv test dev`.

Installs the clone in editable mode with the extras named, at the versions in constraints.txt, and does nothing
when that is already so. An attempt that was cut short is started over. pip's own settings apply (PIP_INDEX_URL,
PIP_FIND_LINKS and the rest), so another build of torch is a matter of pointing pip at it.

Kept to what Python 3.6 reads, so that an old python3 gets a sentence and not a SyntaxError.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
NEWEST_TRIED = 14
CUT_SHORT = "modelgrow-incomplete"
"""A file in the environment while something is being installed."""
STAMP = "modelgrow-ready.json"
"""A file in the environment that says what it was made from."""


def main(argv: List[str]) -> None:
    if len(argv) < 2:
        sys.exit("usage: python3 .ci/environment.py FOLDER [EXTRA ...]")
    if sys.version_info < OLDEST:
        hand_over(argv)
    folder = Path(os.path.abspath(argv[1]))
    extras = set(argv[2:])
    with one_at_a_time():
        done = read_stamp(folder)
        state = fingerprint()
        is_current = done.get("state") == state and extras <= set(done["extras"])
        if is_current and not is_broken(folder):
            return
        extras |= set(done.get("extras", ()))
        install(folder, sorted(extras))
        stamp = {"state": state, "extras": sorted(extras), "folder": str(folder)}
        (folder / STAMP).write_text(json.dumps(stamp))


def hand_over(argv: List[str]) -> None:
    """Run again under a newer Python from PATH, or say what is missing."""
    for minor in range(NEWEST_TRIED, OLDEST[1] - 1, -1):
        other = shutil.which(f"python3.{minor}")
        if other and succeeds([other, "-c", "import ensurepip, venv"]):
            sys.exit(subprocess.call([other, *argv]))
    version = ".".join(map(str, sys.version_info[:3]))
    sys.exit(
        f"modelgrow needs Python {OLDEST[0]}.{OLDEST[1]} or newer. {sys.executable} is Python {version}, "
        "and PATH holds no newer one.\nInstall one, or name it:  make demo PYTHON=/path/to/python3.12"
    )


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two makes in one clone take turns: the second finds the work done."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(ROOT / "pyproject.toml") as file:
        # Some network filesystems refuse to lock a file opened for reading; there, nobody waits.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("waiting for another set-up in this clone", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_stamp(folder: Path) -> Dict[str, Any]:
    try:
        content = json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def fingerprint() -> str:
    """Changes when the requirements change, and when the clone moves: an editable install holds its path."""
    digest = hashlib.sha256(bytes(ROOT))
    for name in ("pyproject.toml", "constraints.txt", ".ci/environment.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def install(folder: Path, extras: List[str]) -> None:
    python = python_of(folder)
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"setting up {folder} with Python {version} (once)", flush=True)
    if is_broken(folder) or not succeeds([python, "-m", "pip", "--version"]):
        # Only an environment is ever cleared: VENV may name a folder that holds something else.
        clear = ["--clear"] if (folder / "pyvenv.cfg").exists() and is_broken(folder) else []
        step("virtual environment", [sys.executable, "-m", "venv", *clear, str(folder)])
    (folder / CUT_SHORT).touch()
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    pip += ["--constraint", str(ROOT / "constraints.txt")]
    # torch by its exact pin, before anything that would accept another build of it; and setuptools, so that the
    # tested one builds the clone and not whatever an isolated build downloads.
    step("torch", [*pip, "torch", "setuptools"])
    target = "[" + ",".join(extras) + "]" if extras else ""
    step("modelgrow" + target, [*pip, "--no-build-isolation", "--editable", str(ROOT) + target])
    (folder / CUT_SHORT).unlink()


def python_of(folder: Path) -> str:
    return str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def is_broken(folder: Path) -> bool:
    """An installation was cut short, the environment moved, or the Python that it links to is gone."""
    if (folder / CUT_SHORT).exists() or read_stamp(folder).get("folder", str(folder)) != str(folder):
        return True
    return not succeeds([python_of(folder), "-c", ""])


def succeeds(command: List[str]) -> bool:
    try:
        return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def step(name: str, command: List[str]) -> None:
    """Run a command and show its large downloads and its time; the end of its output only if it fails."""
    start = time.monotonic()
    print(f"  {name} ...", flush=True)
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if re.search(r"Downloading .*\(\d\d+\.\d MB\)", line):
                print("    " + line.strip(), flush=True)
    if process.returncode != 0:
        sys.stdout.writelines(lines[-40:])
        sys.exit(f"set-up failed at '{name}'; the command was: {' '.join(command)}")
    print(f"  {name}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv)
    except KeyboardInterrupt:
        sys.exit("interrupted; the next make starts over")
