"""The parts of README.md that are made from data. `python tests/readme.py` writes them anew."""

from __future__ import annotations

import json
import re
from pathlib import Path

from architectures import ARCHITECTURES

from modelgrow.pipelines.foundation import foundation_path
from modelgrow.surgery import anatomies

README = Path(__file__).parent.parent / "README.md"


def support_matrix() -> str:
    """One row per declared architecture: what grows, and which true sizes are tested."""
    lines = [
        "| family | diffusers class | stack, counted by | insert, prefix, suffix | true sizes tested |",
        "|---|---|---|---|---|",
    ]
    for anatomy in anatomies().values():
        stacks = ", ".join(f"`{stack.name}`, `{stack.count_key}`" for stack in anatomy.stacks)
        sizes = [hub_id for row in ARCHITECTURES if row.class_name == anatomy.class_name for hub_id in row.published]
        names = ", ".join(size.split("/")[1].removesuffix("-Diffusers") for size in sizes)
        lines.append(f"| {anatomy.family} | `{anatomy.class_name}` | {stacks} | exact | {names} |")
    return "\n".join(lines)


def measured() -> str:
    """What the reader found in the foundation's clips."""
    data = json.loads((foundation_path() / "measured.json").read_text())
    lines = [
        "| prompts | colors | shapes | directions | number of objects | everything |",
        "|---|---|---|---|---|---|",
    ]
    for name, score in data["scores"].items():
        shares = " | ".join(
            f"{100 * score[key]:.1f} %" for key in ("colors", "shapes", "directions", "count", "everything")
        )
        lines.append(f"| {score['prompts']} x {name} | {shares} |")
    return "\n".join(lines)


def rewritten(text: str) -> str:
    """README's text with its generated parts as they should be."""
    for name, content in (("support-matrix", support_matrix()), ("measured", measured())):
        begin = re.search(rf"<!-- {name}: begin[^\n]*-->\n", text)
        end = text.find(f"<!-- {name}: end -->")
        if begin is None or end < begin.end():
            raise ValueError(f"README.md has no place for {name}")
        text = text[: begin.end()] + content + "\n" + text[end:]
    return text


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(encoding="utf-8")), encoding="utf-8")
