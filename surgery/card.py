"""The model card of a packed growth: README.md with the front matter that the Hub reads.

Fields as https://huggingface.co/docs/hub/model-cards has them. The relation to the base is "adapter":
the file is of no use without it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from .hub import is_hub_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .checkpoint import Checkpoint
    from .record import Record
    from .source import Source
    from .step import Step


def model_card(
    source: Source,
    checkpoints: Mapping[str, Checkpoint],
    packed: Mapping[str, tuple[str, ...]],
    *,
    base_model: str | None = None,
    file_name: str = "growth.safetensors",
) -> str:
    """The text of README.md.

    Args:
        source: The grown model.
        checkpoints: Its components that have grown.
        packed: Per component: the tensors that the growth holds.
        base_model: The base's Hub id; what growth.json calls the base if None. Only what looks like a Hub id
            goes into the front matter.
        file_name: What the growth is called.
    """
    records = {name: checkpoint.record for name, checkpoint in checkpoints.items() if checkpoint.record}
    base = base_model or next(iter(records.values())).base.name
    lines = [*_front_matter(source, checkpoints, base), f"# A growth of {base}", ""]
    lines += ["What was added to it, and not the model itself: it needs that one.", ""]
    for name, record in records.items():
        lines += _section(name, checkpoints[name], record, packed[name])
    return "\n".join([*lines, *_usage(base, file_name, is_pipeline=source.pipeline is not None)]) + "\n"


def task_of(class_name: str, pipeline: str | None) -> str | None:
    """The Hub's name for what a model does, as far as its class tells."""
    if class_name.endswith("UNetSpatioTemporalConditionModel") or "ImageToVideo" in (pipeline or ""):
        return "image-to-video"
    if class_name.endswith("2DModel"):
        return "text-to-image"
    if re.search(r"3D|Video|Motion", class_name):
        return "text-to-video"
    return None


def _front_matter(source: Source, checkpoints: Mapping[str, Checkpoint], base: str) -> list[str]:
    pipeline = str(source.pipeline["_class_name"]) if source.pipeline and "_class_name" in source.pipeline else None
    classes = dict.fromkeys(str(checkpoint.class_name) for checkpoint in checkpoints.values())
    task = task_of(next(iter(classes)), pipeline)
    tags = ["modelgrow", *([task] if task else []), *classes]
    lines = ["---"]
    if is_hub_id(base):
        lines += [f"base_model: {base}", "base_model_relation: adapter"]
    lines += ["library_name: diffusers", *([f"pipeline_tag: {task}"] if task else [])]
    return [*lines, "tags:", *(f"- {json.dumps(tag)}" for tag in tags), "---", ""]


def _section(name: str, checkpoint: Checkpoint, record: Record, packed: tuple[str, ...]) -> list[str]:
    new = [key for key in record.new if key in checkpoint.tensors]
    added = sum(checkpoint.tensors[key].num_elements for key in new)
    held = set(packed)
    num_bytes = sum(checkpoint.tensors[key].nbytes for key in packed)
    lines = [
        f"## {f'{name}: ' if name else ''}{checkpoint.class_name}",
        "",
        f"* {checkpoint.num_parameters:,} parameters, {added:,} of them new in {len(new)} tensors",
        f"* {len(packed)} tensors here, {num_bytes:,} bytes; "
        f"{len(held.difference(new))} of them are the base's with other values",
        f"* base: `{record.base.name}`, weights `{record.base.fingerprint}`",
        "",
        "How it was made:",
        "",
    ]
    return [*lines, *(f"{number}. {_step(step)}" for number, step in enumerate(record.steps, 1)), ""]


def _step(step: Step) -> str:
    options = " ".join(f"{key}={_plain(value)}" for key, value in step.options.items())
    return f"`{step.operation} {options}`".replace(" `", "`") + f" ({step.made_with})"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _usage(base: str, file_name: str, *, is_pipeline: bool) -> list[str]:
    what = "pipeline" if is_pipeline else "model"
    loader = "DiffusionPipeline" if is_pipeline else "AutoModel"
    return [
        "## Use",
        "",
        "```python",
        f"from diffusers import {loader}",
        "from modelgrow.pipelines import load_growth",
        "",
        f"{what} = {loader}.from_pretrained({json.dumps(base)})",
        f"{what} = load_growth({what}, {json.dumps(file_name)})",
        "```",
        "",
        "Or as a folder that diffusers loads by itself:",
        "",
        "```sh",
        f"grow apply {file_name} --base {base} -o grown",
        "```",
        "",
        "The license of the base holds for what was copied from it; state yours in the front matter.",
    ]
