"""The model card of a trained pipeline: what was trained, on what, for how long. Front matter as the Hub reads it."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from shlex import quote
from typing import TYPE_CHECKING, Any

from modelgrow.pipelines.motion_adapter import ADAPTER, SCHEDULE
from modelgrow.surgery.card import task_of
from modelgrow.surgery.errors import GrowError
from modelgrow.surgery.grown import stock_name
from modelgrow.surgery.hub import is_hub_id
from modelgrow.surgery.index import LIBRARY
from modelgrow.surgery.source import open_source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from modelgrow.surgery import Checkpoint, Source

CARD_NAME = "README.md"
_LICENSE = re.compile(r"license(?:_name|_link)?: \S.*")


def model_card(model: Path, component: str, told: Mapping[str, Any], carried: str = "") -> str:
    """The text of README.md.

    Args:
        model: The trained pipeline's folder.
        component: What was trained in it.
        told: What the run says of itself.
        carried: The card that the pipeline had before; its license is stated on.
    """
    source = open_source(str(model))
    checkpoint = next(part.checkpoint for part in source.components if part.name == component)
    if checkpoint is None:
        raise GrowError(f"{model / component}: has no safetensors weights, though they were just written")
    lines = [*_front_matter(source, checkpoint, carried), f"# {told['name']}", ""]
    lines += [*_origin(component, checkpoint), "", "## Training", "", "| | |", "|---|---|"]
    lines += [f"| {label} | {value} |" for label, value in rows(checkpoint, told)]
    return "\n".join([*lines, "", *_usage(source, checkpoint, told)]) + "\n"


def rows(checkpoint: Checkpoint, told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and value of what a reader asks first."""
    record = checkpoint.record
    new = sum(checkpoint.tensors[key].num_elements for key in record.new if key in checkpoint.tensors) if record else 0
    trained = {
        "new": "what the growth added; every other weight is the base's, byte for byte",
        "grown-blocks": "the blocks that hold something new; every other weight is the base's, byte for byte",
    }.get(str(told["train"]), "every weight")
    sizes = ", ".join(f"{b['clips']} of {b['num_frames']} x {b['height']} x {b['width']}" for b in told["buckets"])
    beside = f", with {' and '.join(told['controls'])}" if told.get("controls") else ""
    found = [
        ("what trained", f"{told['parameters']:,} of {checkpoint.num_parameters:,} parameters: {trained}"),
        ("new by growth", f"{new:,} parameters"),
        ("data", f"`{told['data']}`: clips {sizes} (frames x height x width){beside}"),
        *([("trained in", f"`{told['pipeline']}`")] if "pipeline" in told else []),
        ("steps", f"{told['steps']:,} of {told['batch_size']} clips, {told['steps'] * told['batch_size']:,} in all"),
        ("time", f"{timedelta(seconds=round(told['seconds']))} on {told['device']}"),
        ("learning rate", f"{told['learning_rate']:g}, {told['schedule']}"),
        ("loss", f"{_number(told['first_loss'])} at first, {_number(told['last_loss'])} at last"),
    ]
    if told["validation_loss"] is not None:
        found.append(("loss on held-out clips", _number(told["validation_loss"])))
    if told["ema_decay"]:
        found.append(("weights", f"averaged, decay {told['ema_decay']:g}"))
    if "quantize" in told:
        found.append(("while it trained", f"frozen linear layers were quantized, {told['quantize']}; none is here"))
    if told["cache_trunk"]:
        found.append(("cached trunk", f"{told['cache_trunk']} draws of noise and timestep per clip"))
    return [*found, ("seed", str(told["seed"])), ("made with", str(told["made_with"]))]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _front_matter(source: Source, checkpoint: Checkpoint, carried: str) -> list[str]:
    pipeline = str((source.pipeline or {}).get("_class_name", ""))
    task = task_of(str(checkpoint.class_name), pipeline)
    base = checkpoint.record.base.name if checkpoint.record else source.name
    lines = ["---", *_license(carried)]
    if is_hub_id(base):
        lines += [f"base_model: {base}", "base_model_relation: finetune"]
    lines += ["library_name: diffusers", *([f"pipeline_tag: {task}"] if task else [])]
    tags = ["modelgrow", *([task] if task else []), str(checkpoint.class_name)]
    return [*lines, "tags:", *(f"- {json.dumps(tag)}" for tag in tags), "---", ""]


def _license(card: str) -> list[str]:
    """What a card's front matter says of the license."""
    if not card.startswith("---\n"):
        return []
    return [line for line in card.split("\n---", 1)[0].splitlines() if _LICENSE.fullmatch(line)]


def _origin(component: str, checkpoint: Checkpoint) -> list[str]:
    record = checkpoint.record
    what = f"`{component}` ({checkpoint.class_name})" if component else str(checkpoint.class_name)
    if record is None:
        return [f"Its {what} was trained; it has not grown."]
    grown = [step for step in record.steps if step.operation != "train"]
    steps = [
        f"{number}. `{' '.join([step.operation, *(f'{k}={_plain(v)}' for k, v in step.options.items())])}`"
        for number, step in enumerate(grown, 1)
    ]
    name = record.base.name
    return [
        f"`{name}` with a {what} that has grown and was trained on."
        if component
        else f"`{name}`, a {what}, has grown and was trained on.",
        f"The base's weights had the fingerprint `{record.base.fingerprint}`.",
        "",
        "How it grew:",
        "",
        *steps,
    ]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _usage(source: Source, checkpoint: Checkpoint, told: Mapping[str, Any]) -> list[str]:
    name, alone = str(checkpoint.class_name), source.pipeline is None
    lines = _load_alone(name, told) if alone else _load_pipeline(source)
    more = _generate_alone(name, told) if alone else []
    return [
        "## Use",
        "",
        "```python",
        *lines,
        "```",
        "",
        *more,
        "The base's license holds for what was copied from it.",
    ]


def _load_pipeline(source: Source) -> list[str]:
    lines = [
        "from diffusers import DiffusionPipeline",
        "",
        'pipeline = DiffusionPipeline.from_pretrained("this folder")',
    ]
    if LIBRARY in json.dumps(dict(source.pipeline or {})):
        lines.insert(0, f"import {LIBRARY}  # makes its classes known to diffusers")
    return lines


def _load_alone(model: str, told: Mapping[str, Any]) -> list[str]:
    """The component, and the pipeline that takes it."""
    pipeline, argument, base = str(told["runs_in"]), str(told["argument"]), json.dumps(told["pipeline"])
    more = _as_trained(pipeline, base) if model == ADAPTER else {}
    names = {pipeline, model, *more}
    stock = {name for name in names if name == stock_name(name)}
    return [
        *([f"from diffusers import {', '.join(sorted(stock))}"] if stock else []),
        *([f"from {LIBRARY} import {', '.join(sorted(names - stock))}"] if names - stock else []),
        "",
        f'{argument} = {model}.from_pretrained("this folder")',
        f"pipeline = {pipeline}.from_pretrained({base}, {argument}={argument})",
        *(line for lines in more.values() for line in lines),
    ]


def _generate_alone(model: str, told: Mapping[str, Any]) -> list[str]:
    """The command that makes clips with the two; none for what makes pictures."""
    task = task_of(model, str(told["runs_in"]))
    if task not in ("text-to-video", "image-to-video"):
        return []
    given = "--prompt" if task == "text-to-video" else "--image"
    command = f'grow generate --model "this folder" --pipeline {quote(str(told["pipeline"]))} {given} "..."'
    return ["or, from a shell:", "", "```sh", command, "```", ""]


def _as_trained(pipeline: str, base: str) -> dict[str, list[str]]:
    """What is left to do where a motion adapter was plugged in: classes of diffusers -> lines with them."""
    schedule = ", ".join(f"{key}={value!r}" for key, value in SCHEDULE.items())
    found = {
        "DDIMScheduler": [f"pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, {schedule})"]
    }
    if "SDXL" in pipeline:
        found["UNet2DConditionModel"] = [
            "# diffusers 0.42 does not take over the layers that read sizes and pooled prompts",
            f'unet = UNet2DConditionModel.from_pretrained({base}, subfolder="unet")',
            "pipeline.unet.add_embedding.load_state_dict(unet.add_embedding.state_dict())",
        ]
    return found
