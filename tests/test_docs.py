"""What the README says is what the program does."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from readme import README, rewritten
from typer.main import get_command

from modelgrow.cli import app
from modelgrow.surgery import anatomy
from modelgrow.surgery.anatomy_files import parse_anatomy

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")


def test_generated_parts_are_current() -> None:
    assert rewritten(TEXT) == TEXT, "run 'make readme'"


def commands() -> list[list[str]]:
    """Every `grow ...` line of the README's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    return [
        shlex.split(line, comments=True) for block in blocks for line in block.splitlines() if line.startswith("grow ")
    ]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_in_the_readme_parse(words: list[str]) -> None:
    group = get_command(app)
    command = group.commands[words[1]]  # type: ignore[attr-defined]
    context = command.make_context(words[1], list(words[2:]))
    assert context.params


def test_there_are_commands_to_test() -> None:
    assert {words[1] for words in commands()} >= {"inspect", "expand", "verify", "generate"}


def test_every_command_has_help_with_an_example() -> None:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert command.help, name
        assert "Example" in (command.epilog or ""), name
        for parameter in command.params:
            assert getattr(parameter, "help", None) or parameter.name == "help", f"{name} {parameter.name}"


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", TEXT))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block that grows CogVideoX, on a tiny CogVideoX of that name."""
    from architectures import ARCHITECTURES
    from models import save

    row = next(row for row in ARCHITECTURES if row.name == "cogvideox-2b")
    save(tmp_path / "CogVideoX-2b", row.class_name, {**row.tiny, "num_layers": 5})
    monkeypatch.chdir(tmp_path)
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL) if "plan_expand" in b]
    exec(compile(block, "README.md", "exec"), {})
    assert '"num_layers": 6' in (tmp_path / "CogVideoX-2b-deep" / "config.json").read_text()


def test_every_key_of_an_anatomy_is_explained() -> None:
    text = (ROOT / "docs" / "anatomy.md").read_text(encoding="utf-8")
    tables = {name: table for name, table in vars(anatomy).items() if is_dataclass(table)}
    assert {"Anatomy", "Frames", "Stack", "Slot"} <= set(tables)
    keys = {item.name for table in tables.values() for item in fields(table)}
    assert [key for key in sorted(keys) if f"`{key}`" not in text and f"[{key}]" not in text] == []


def test_the_example_of_an_anatomy_is_one() -> None:
    text = (ROOT / "docs" / "anatomy.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    assert parse_anatomy(block, where="docs").stacks[0].count_keys == ("num_layers",)
