"""Who imports whom: the arrows between the folders, what must not load torch, and the declared dependencies."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.main import get_command

from modelgrow.cli import app

ROOT = Path(__file__).parent.parent
FOLDERS = ("commands", "examples", "pipelines", "surgery", "train")
SOURCES = [ROOT / "cli.py", *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, by its absolute name."""
    package = ["modelgrow", *path.parent.relative_to(ROOT).parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_arrows_go_one_way() -> None:
    """cli -> commands -> train -> pipelines -> surgery."""
    above = {
        "surgery": ("pipelines", "train", "commands", "cli", "examples"),
        "pipelines": ("train", "commands", "cli"),
        "train": ("commands", "cli", "examples"),
        "commands": ("cli",),
        "examples": ("commands", "cli"),
    }
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in SOURCES
        for name in imported(path)
        for forbidden in above.get(path.relative_to(ROOT).parts[0], ())
        if f"{name}.".startswith(f"modelgrow.{forbidden}.")
    ]
    assert wrong == []


def test_nothing_imports_a_folder_by_its_bare_name() -> None:
    """In test and source alike; relative imports are resolved first, so `from .surgery import x` is no fault."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in [*SOURCES, *TESTS]
        for name in imported(path)
        if name.split(".")[0] in ("cli", *FOLDERS)
    ]
    assert wrong == []


HEAVY = ("torch", "diffusers", "transformers", "accelerate")
LIGHT = "modelgrow.surgery.errors"  # loaded each time: what shows that the look works
LOOK = f"print(*sorted({{*{HEAVY!r}, {LIGHT!r}}} & set(sys.modules)))"


def test_surgery_names_no_torch() -> None:
    """Not even inside a function, or for a type."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "surgery").rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_surgery_loads_no_torch() -> None:
    modules = ", ".join(f"modelgrow.surgery.{path.stem}" for path in (ROOT / "surgery").glob("[!_]*.py"))
    code = f"import sys, {modules}\n{LOOK}"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [LIGHT]


def commands() -> list[list[str]]:
    """Every command of `grow`, and of its groups, if it has any."""
    found: list[list[str]] = [[]]
    todo: list[tuple[list[str], object]] = [([], get_command(app))]
    while todo:
        words, group = todo.pop()
        for name, command in getattr(group, "commands", {}).items():
            found.append([*words, name])
            todo.append(([*words, name], command))
    return sorted(found)


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(["grow", *words]))
def test_help_loads_no_torch(words: list[str]) -> None:
    """Help answers at once. What was imported says so exactly; a clock would not."""
    code = f"""
import sys
from modelgrow.cli import main
sys.argv = ["grow", *{words!r}, "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
{LOOK}
"""
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    *text, loaded = run.stdout.splitlines()
    assert " ".join(["Usage: grow", *words]) in "\n".join(text)
    assert loaded == LIGHT


def requirements() -> dict[str, Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def test_constraints_pin_a_version_that_each_requirement_allows() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    pins = dict(line.split("==") for line in lines)
    assert list(pins) == sorted(pins)
    for name, requirement in requirements().items():
        assert requirement.specifier.contains(pins[name]), f"{requirement} excludes {pins[name]}"


# Needed by name, imported by others: see the comments in pyproject.toml.
INDIRECT = {"ftfy", "protobuf", "sentencepiece", "tensorboard"}
DISTRIBUTIONS = {"PIL": "pillow", "bs4": "beautifulsoup4"}


def test_dependencies_are_what_is_imported() -> None:
    names = {name.split(".")[0] for path in SOURCES for name in imported(path)}
    outside = names - set(sys.stdlib_module_names) - {"modelgrow"}
    needed = {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in outside}
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert needed | INDIRECT == declared
