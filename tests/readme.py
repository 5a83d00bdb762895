"""The parts of README.md that are made from data. `python tests/readme.py` writes them anew."""

from __future__ import annotations

import json
import re
from pathlib import Path

from architectures import ARCHITECTURES, Architecture

from modelgrow.pipelines.foundation import foundation_path
from modelgrow.surgery import Stack, anatomies
from modelgrow.surgery.order import MODES
from modelgrow.train.families import FAMILIES

_POSITIONS = {
    "rope": "RoPE",
    "config": "RoPE, by config",
    "sincos": "sines",
    "fixed": "sines",
    "weights": "trained RoPE",
}

README = Path(__file__).parent.parent / "README.md"


def support_matrix() -> str:
    """One row per stack of every declared architecture: what grows, and which true sizes are tested."""
    lines = [
        "| family | diffusers class | stack, counted by | insert | prefix | suffix | true sizes tested |",
        "|---|---|---|---|---|---|---|",
    ]
    for anatomy in anatomies().values():
        rows = [row for row in ARCHITECTURES if row.class_name == anatomy.class_name]
        names = ", ".join(hub_id.split("/")[1].removesuffix("-Diffusers") for row in rows for hub_id in row.published)
        for stack in anatomy.stacks:
            counted = ", ".join(f"`{key}`" for key in stack.count_keys)
            modes = " | ".join(_verdict(rows, stack, mode) for mode in MODES)
            first = stack is anatomy.stacks[0]
            family = f"{anatomy.family} | `{anatomy.class_name}`" if first else " | "
            lines.append(f"| {family} | `{stack.name}`, {counted} | {modes} | {names if first else ''} |")
    return "\n".join(lines)


def _verdict(rows: list[Architecture], stack: Stack, mode: str) -> str:
    """What tests/pipelines/test_identity.py proves of a mode, over all rows of a class."""
    refused = [row for row in rows if (stack.name, mode) in row.refused]
    if not refused:
        return "exact"
    return "refused" if len(refused) == len(rows) else f"exact, but {', '.join(row.name for row in refused)} refused"


def features() -> str:
    """One row per declared architecture: what else can be done to it besides growing in depth."""
    lines = [
        "| family | `attach-llm` | `extend-frames`: positions, default method | `train` |",
        "|---|---|---|---|",
    ]
    for anatomy in anatomies().values():
        slot = "exact" if any(stack.slot for stack in anatomy.stacks) else "no"
        frames = anatomy.frames
        positions = {"": "no", "none": "makes pictures", "exvideo": "ExVideo"}.get(
            frames.kind, f"{_POSITIONS.get(frames.kind, frames.kind)}; {frames.method}"
        )
        trains = "yes" if anatomy.class_name in FAMILIES else "no"
        lines.append(f"| {anatomy.family} | {slot} | {positions} | {trains} |")
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
    for name, content in (("support-matrix", support_matrix()), ("features", features()), ("measured", measured())):
        begin = re.search(rf"<!-- {name}: begin[^\n]*-->\n", text)
        end = text.find(f"<!-- {name}: end -->")
        if begin is None or end < begin.end():
            raise ValueError(f"README.md has no place for {name}")
        text = text[: begin.end()] + content + "\n" + text[end:]
    return text


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(encoding="utf-8")), encoding="utf-8")
