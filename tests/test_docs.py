"""What the README says is what the program does."""

from __future__ import annotations

import ast
import json
import re
import shlex
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from readme import README, rewritten
from typer.main import get_command

from modelgrow.cli import app
from modelgrow.surgery import anatomy
from modelgrow.surgery.anatomy_files import parse_anatomy
from modelgrow.train.settings import Settings

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")
PAGES = {page: page.read_text(encoding="utf-8") for page in (README, *sorted((ROOT / "docs").glob("*.md")))}
GROUP: Any = get_command(app)


def test_generated_parts_are_current() -> None:
    assert rewritten(TEXT) == TEXT, "run 'make readme'"


def commands() -> list[list[str]]:
    """Every `grow ...` line in shell blocks of the README and the docs, and every example in a command's help."""
    blocks = [block for text in PAGES.values() for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for command in GROUP.commands.values():
        lines += re.findall(r"\[bold\](grow \S+ .*?)\[/bold\]", command.epilog)
    return [shlex.split(line, comments=True) for line in lines if line.startswith("grow ")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_parse(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "myvideo.toml").touch()  # what --anatomy names has to be there
    command = GROUP.commands[words[1]]
    context = command.make_context(words[1], list(words[2:]))
    assert context.params


def test_there_are_commands_to_test() -> None:
    assert {words[1] for words in commands()} >= {"inspect", "expand", "verify", "generate"}


def test_every_command_has_help_with_an_example() -> None:
    for name, command in GROUP.commands.items():
        assert command.help, name
        assert "Example" in (command.epilog or ""), name
        for parameter in command.params:
            assert getattr(parameter, "help", None) or parameter.name == "help", f"{name} {parameter.name}"


def _links() -> list[tuple[str, str]]:
    """Page and target of every link that stays here."""
    found = ((page, link) for page, text in PAGES.items() for link in re.findall(r"\]\((?!http)([^)]+)\)", text))
    return sorted({(str(page.relative_to(ROOT)), link) for page, link in found})


def _headings(page: Path) -> set[str]:
    """What a link can name in a page, as GitHub makes it of the headings."""
    lines = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL).splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(("page", "link"), _links(), ids=" ".join)
def test_links_lead_somewhere(page: str, link: str) -> None:
    path, _, heading = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    assert not heading or heading in _headings(target)


def test_python_of_the_docs_imports_what_there_is() -> None:
    """Every block can be read, and every name that it takes from modelgrow is there."""
    names = set()
    for page, text in PAGES.items():
        for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
            imports = [node for node in ast.walk(ast.parse(block, page.name)) if isinstance(node, ast.ImportFrom)]
            names |= {(node.module, name.name) for node in imports for name in node.names}
    ours = sorted((module, name) for module, name in names if module and module.startswith("modelgrow"))
    assert ("modelgrow.pipelines", "load_growth") in ours
    assert [f"{module}.{name}" for module, name in ours if not hasattr(import_module(module), name)] == []


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


def test_every_setting_of_a_run_is_explained() -> None:
    """A row of the table each, with its default."""
    text = (ROOT / "docs" / "train.md").read_text(encoding="utf-8").partition("## All settings")[2]
    rows = re.findall(r"^\| (`.*?`) \| (.*?) ?\|", text, flags=re.MULTILINE)
    told = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    defaults = {item.name: item.default for item in fields(Settings)}
    assert list(told) == list(defaults)
    for name, default in defaults.items():
        assert told[name].strip("`") == ("" if default in (None, MISSING) else json.dumps(default)), name
