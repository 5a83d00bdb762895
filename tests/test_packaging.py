"""What a user installs is what stands in the clone: nothing forgotten, nothing that strayed in.

The folders at the root are imported as modelgrow.*, through a list in pyproject.toml. Mistakes in such a mapping are
silent: a package that is not listed works in the clone and is missing from the wheel.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("commands", "examples", "pipelines", "surgery", "train")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
IGNORED = [
    line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line and not line.startswith("#")
]


def ignored(folder: str, names: list[str]) -> set[str]:
    """What is no part of the source: git's own folder, what .gitignore names, environments under any name."""
    return {
        name
        for name in names
        if name == ".git"
        or any(fnmatch.fnmatch(name, pattern) for pattern in IGNORED)
        or Path(folder, name, "pyvenv.cfg").exists()
    }


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source to build from: building leaves an egg-info behind, and reads an old one."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "a clone", ignore=ignored, symlinks=True))


def build(source: Path, kind: str) -> Path:
    """Run a hook of the build backend, as pip and build do, without their download of setuptools."""
    output = source.parent / kind
    output.mkdir(exist_ok=True)
    code = f"from setuptools.build_meta import build_{kind} as build; print(build({str(output)!r}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return output / run.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def unpacked_sdist(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    shutil.unpack_archive(build(clone, "sdist"), folder, filter="data")
    (source,) = folder.iterdir()
    return source


@pytest.fixture(scope="module")
def installed(unpacked_sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel made from the sdist, unpacked: of a pure wheel, that is what installing does."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(build(unpacked_sdist, "wheel")) as wheel:
        wheel.extractall(folder)
    return folder


def source_files(root: Path) -> set[str]:
    """Everything in the folders that are packages, and cli.py, as it should be called once installed."""
    files = {"modelgrow/cli.py"}
    for folder in FOLDERS:
        for path in (root / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files.add(f"modelgrow/{path.relative_to(root).as_posix()}")
    return files


def run_outside(code: str, path: Path, *, cwd: Path) -> str:
    """Run code that finds a folder's modules first, then the dependencies; -S: the environment's own .pth files,
    with its editable install of this clone, are not read."""
    packages = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    code = f"import sys\nsys.path[:0] = {[str(path), *packages]!r}\n{code}"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_the_wheel_holds_what_the_clone_holds(installed: Path, clone: Path) -> None:
    names = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    content = {name for name in names if ".dist-info/" not in name}
    assert content == source_files(clone)
    assert {"modelgrow/surgery/anatomies/wan.toml", "modelgrow/examples/shapes/foundation/model_index.json"} < content
    assert {f"modelgrow/{folder}/py.typed" for folder in FOLDERS} < content
    for name in content:
        assert (installed / name).read_bytes() == (clone / name.removeprefix("modelgrow/")).read_bytes(), name


def test_the_sdist_can_test_itself(unpacked_sdist: Path, clone: Path) -> None:
    for name in (
        "Makefile",
        "constraints.txt",
        ".ci/environment.py",
        ".ci/run",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
    ):
        assert (unpacked_sdist / name).read_bytes() == (clone / name).read_bytes(), name
    tests = {path.relative_to(clone) for path in (clone / "tests").rglob("*") if path.is_file()}
    assert tests == {
        path.relative_to(unpacked_sdist) for path in (unpacked_sdist / "tests").rglob("*") if path.is_file()
    }


def test_the_wheel_works_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    entry = ConfigParser()
    entry.read(next(installed.glob("*.dist-info")) / "entry_points.txt")
    module, function = entry["console_scripts"]["grow"].split(":")
    code = f"""
import modelgrow.surgery, modelgrow.examples.shapes, {module}
assert callable({module}.{function})
assert modelgrow.surgery.anatomies()
print(*modelgrow.__path__, modelgrow.surgery.__file__)
"""
    folder = installed / "modelgrow"
    assert run_outside(code, installed, cwd=tmp_path) == f"{folder} {folder / 'surgery' / '__init__.py'}"


def test_an_editable_install_sees_edits_and_new_files(clone: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(build(clone, "editable")) as wheel:
        wheel.extractall(site)
    added = clone / "surgery" / "just_added.py"
    added.write_text("ANSWER = 42\n")
    try:
        code = f"""
import site
site.addsitedir({str(site)!r})
import modelgrow.surgery.just_added, modelgrow.cli
print(modelgrow.surgery.just_added.ANSWER, modelgrow.cli.__file__)
"""
        assert run_outside(code, site, cwd=tmp_path) == f"42 {clone / 'cli.py'}"
    finally:
        added.unlink()


def test_the_list_of_packages_is_what_stands_on_disk() -> None:
    found = {
        "modelgrow." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted({"modelgrow", *found})
    for name in found:
        assert (ROOT.joinpath(*name.split(".")[1:]) / "__init__.py").exists(), f"{name} has no __init__.py"


def test_cli_is_the_only_module_at_the_root() -> None:
    """Any other, a conftest.py or a setup.py, would ship as modelgrow.conftest."""
    assert [path.name for path in ROOT.glob("*.py")] == ["cli.py"]


@pytest.mark.parametrize("name", ["cli", *FOLDERS])
def test_the_bare_name_is_refused(name: str) -> None:
    """`python -m pytest` and `python cli.py` put the root on sys.path, where a second copy of every class waits."""
    code = f"""
try:
    import {name}
except ImportError as error:
    print(error)
"""
    assert "run 'pip install -e .' in the clone" in run_outside(code, ROOT, cwd=ROOT)


def test_no_file_names_a_machine() -> None:
    """Paths of one machine, and addresses of registries, work in one place only."""
    machine = re.compile(r"(?<![\w.])/(?:work|root|home|Users)/\w" + r"|file:" + r"//|pypi\." + r"org|pytorch\.org/whl")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in source_tree()
        if b"\0" not in (content := path.read_bytes())
        for match in machine.finditer(content.decode("utf-8", errors="replace"))
    ]
    assert found == []


def source_tree() -> Iterator[Path]:
    for folder, names, files in os.walk(ROOT):
        skipped = ignored(folder, [*names, *files])
        names[:] = sorted(set(names) - skipped)
        yield from (Path(folder, name) for name in sorted(set(files) - skipped))
