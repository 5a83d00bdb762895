""".ci/environment.py: what `make` relies on. Commands are recorded and not run, so nothing is installed."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

import environment
import pytest

SOURCE = Path(environment.__file__)


class Recorder:
    """Stands in for `step` and `succeeds`."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.failing: str | None = None
        self.working = {"python", "pip"}

    def step(self, name: str, command: list[str]) -> None:
        self.commands.append(command)
        if name == self.failing:
            sys.exit(f"set-up failed at '{name}'")
        if "venv" in command:
            folder = Path(command[-1])
            folder.mkdir(exist_ok=True)
            (folder / "pyvenv.cfg").touch()
            if "--clear" in command:
                (folder / "modelgrow-incomplete").unlink(missing_ok=True)

    def succeeds(self, command: list[str]) -> bool:
        if not Path(command[0]).parents[1].joinpath("pyvenv.cfg").exists():
            return False
        return ("pip" if "pip" in command else "python") in self.working

    def take(self) -> list[str]:
        """What was run since the last look, in short."""
        shorts = []
        for command in self.commands:
            if "venv" in command:
                shorts.append("clear" if "--clear" in command else "venv")
            else:
                shorts.append(command[-1].rpartition("/")[2].removeprefix(environment.ROOT.name))
        self.commands.clear()
        return shorts


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    root = tmp_path / "clone"
    (root / ".ci").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", ".ci/environment.py"):
        shutil.copy(environment.ROOT / name, root / name)
    made = Recorder()
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setattr(environment, "step", made.step)
    monkeypatch.setattr(environment, "succeeds", made.succeeds)
    return made


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    return tmp_path / "venv"


def make(folder: Path, *extras: str) -> None:
    environment.main(["environment.py", str(folder), *extras])


def test_torch_comes_first_and_once_is_enough(recorder: Recorder, venv: Path) -> None:
    make(venv, "test")
    assert [command[-2:] for command in recorder.commands[1:]] == [
        ["torch", "setuptools"],
        ["--editable", f"{environment.ROOT}[test]"],
    ]
    assert all("--constraint" in command for command in recorder.commands[1:])
    recorder.take()
    make(venv, "test")
    make(venv)
    assert recorder.take() == []


def test_extras_add_up(recorder: Recorder, venv: Path) -> None:
    make(venv, "test")
    recorder.take()
    make(venv, "dev")
    assert recorder.take() == ["setuptools", "[dev,test]"]
    make(venv, "test")
    assert recorder.take() == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_other_requirements_install_again_into_the_same_environment(recorder: Recorder, venv: Path, name: str) -> None:
    make(venv, "test")
    recorder.take()
    with open(environment.ROOT / name, "a") as file:
        file.write("# changed\n")
    make(venv, "test")
    assert recorder.take() == ["setuptools", "[test]"]


def test_a_clone_that_moved_is_installed_again(
    recorder: Recorder, venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(venv, "test")
    recorder.take()
    monkeypatch.setattr(environment, "ROOT", Path(shutil.copytree(environment.ROOT, tmp_path / "moved")))
    make(venv, "test")
    assert recorder.take() == ["setuptools", "[test]"]


def test_a_failed_addition_is_not_taken_for_the_old_environment(recorder: Recorder, venv: Path) -> None:
    make(venv, "test")
    recorder.failing = "modelgrow[dev,test]"
    with pytest.raises(SystemExit):
        make(venv, "dev")
    recorder.failing = None
    recorder.take()
    make(venv, "test")
    assert recorder.take() == ["clear", "setuptools", "[test]"]


def test_an_environment_that_moved_starts_over(recorder: Recorder, venv: Path, tmp_path: Path) -> None:
    """Its scripts hold their old path."""
    make(venv, "test")
    recorder.take()
    make(venv.rename(tmp_path / "elsewhere"), "test")
    assert recorder.take() == ["clear", "setuptools", "[test]"]


@pytest.mark.parametrize("failing", ["torch", "modelgrow[test]"])
def test_what_was_cut_short_starts_over(recorder: Recorder, venv: Path, failing: str) -> None:
    recorder.failing = failing
    with pytest.raises(SystemExit, match="set-up failed at"):
        make(venv, "test")
    recorder.failing = None
    recorder.take()
    make(venv, "test")
    assert recorder.take() == ["clear", "setuptools", "[test]"]


def test_an_environment_whose_python_is_gone_starts_over(recorder: Recorder, venv: Path) -> None:
    make(venv, "test")
    recorder.take()
    recorder.working = set()
    make(venv, "test")
    assert recorder.take() == ["clear", "setuptools", "[test]"]


def test_an_environment_of_the_user_is_kept(recorder: Recorder, venv: Path) -> None:
    """One with another build of torch in it, say; without pip, as uv makes them, it only gets pip."""
    venv.mkdir()
    (venv / "pyvenv.cfg").touch()
    make(venv, "test")
    assert recorder.take() == ["setuptools", "[test]"]
    (venv / "modelgrow-ready.json").unlink()
    recorder.working = {"python"}
    make(venv, "test")
    assert recorder.take() == ["venv", "setuptools", "[test]"]


def test_a_folder_that_is_no_environment_is_never_cleared(recorder: Recorder, venv: Path) -> None:
    venv.mkdir()
    (venv / "thesis.txt").touch()
    (venv / "modelgrow-incomplete").touch()
    make(venv, "test")
    assert recorder.take() == ["venv", "setuptools", "[test]"]


def test_an_old_python_gets_a_sentence(monkeypatch: pytest.MonkeyPatch, venv: Path) -> None:
    assert "from __future__" not in SOURCE.read_text()
    ast.parse(SOURCE.read_text(), feature_version=(3, 6))
    monkeypatch.setattr("environment.sys.version_info", (3, 8, 1))
    monkeypatch.setattr("environment.shutil.which", lambda name: None)
    with pytest.raises(SystemExit) as end:
        make(venv, "test")
    assert "needs Python 3.11 or newer" in str(end.value.code)
    assert "is Python 3.8.1" in str(end.value.code)
    assert "PYTHON=" in str(end.value.code)
