"""LoRAs that were trained on a base, loaded onto the model that grew from it."""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import torch

from modelgrow.surgery import CheckpointError, anatomies
from modelgrow.surgery.diffsynth_lora import diffusers_names, is_diffsynth_lora
from modelgrow.surgery.errors import first_line
from modelgrow.surgery.grown import stock_name
from modelgrow.surgery.lora import remap_value
from modelgrow.surgery.lora_keys import LoraTarget, remap_for
from modelgrow.surgery.record import RECORD_NAME, Record

_FETCH = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
    "weight_name",
)
_FILE = "pytorch_lora_weights.safetensors"
_METADATA = "lora_adapter_metadata"
_CACHED = re.compile(r".*/models--(?P<id>[^/]+)/snapshots/(?P<revision>[^/]+)(?:/(?P<inner>.+))?")


def load_lora(pipeline: Any, lora: str | Path | dict[str, torch.Tensor], **kwargs: Any) -> None:
    """`pipeline.load_lora_weights` for a grown pipeline and a LoRA of its base: every block's weights find their block.

    A LoRA in DiffSynth's names, such as ExVideo's for CogVideoX, gets diffusers' names, and loads into a pipeline that
    has not grown too. diffusers itself passes over it in silence.

    What has grown is known from `load_growth`, or from the growth.json of the folder that a component was loaded from.

    Args:
        pipeline: Any diffusers pipeline that loads LoRAs.
        lora: A folder, a file or a Hub id, in any form that the pipeline understands; or a state dict.
        **kwargs: As for the pipeline's own `load_lora_weights`: weight_name, adapter_name, ...

    Raises:
        CheckpointError: Nothing in the pipeline has grown, or the LoRA was trained on another model.
    """
    models = _grown(pipeline)
    has_grown = bool(models)
    if kwargs.get("load_into_transformer_2"):  # the keys say "transformer." even so
        models = {"transformer": models["transformer_2"]} if "transformer_2" in models else {}
    state, metadata = _read(pipeline, lora, {key: kwargs.pop(key) for key in _FETCH if key in kwargs})
    if is_diffsynth_lora(state):
        plain = diffusers_names(state, _classes(pipeline), where=_name(lora))
        state = {plain[key]: tensor for key, tensor in state.items()}
    elif not has_grown:
        raise _not_grown(pipeline)
    names = remap_for(state, models) if models else {key: key for key in state}
    settings = remap_value(metadata, models, names.values()) if metadata and models else metadata
    before = _num_layers(pipeline)
    _load(pipeline, {names[key]: tensor for key, tensor in state.items()}, settings, kwargs)
    if _num_layers(pipeline) == before:
        raise CheckpointError(
            f"{_name(lora)}: none of its {len(names)} keys, such as {next(iter(names.values()), 'none')!r}, is of a "
            f"layer of {type(pipeline).__name__}, so that nothing was loaded; the LoRA is of another model"
        )


def _grown(pipeline: Any) -> dict[str, LoraTarget]:
    known = anatomies()
    found = {}
    for name, component in pipeline.components.items():
        record = _record_of(component)
        if record is not None:
            found[name] = LoraTarget(record=record, anatomy=known.get(record.base.class_name))
    return found


def _not_grown(pipeline: Any) -> CheckpointError:
    return CheckpointError(
        f"{type(pipeline).__name__}: no component is known to have grown: none was grown by load_growth, or loaded "
        f"from a folder with {RECORD_NAME}. For a pipeline that has not grown call pipeline.load_lora_weights"
    )


def _modules(pipeline: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}


def _classes(pipeline: Any) -> dict[str, str]:
    return {name: stock_name(type(part).__name__) for name, part in _modules(pipeline).items()}


def _num_layers(pipeline: Any) -> int:
    """How many tensors of LoRAs the pipeline has."""
    return sum(".lora_" in name for part in _modules(pipeline).values() for name, _ in part.named_parameters())


def _name(lora: Any) -> str:
    return "the LoRA" if isinstance(lora, dict) else str(lora)


def _record_of(component: Any) -> Record | None:
    record = getattr(component, "modelgrow_record", None)
    if isinstance(record, Record):
        return record
    folder = getattr(getattr(component, "config", None), "_name_or_path", None)
    if not isinstance(folder, str) or not folder:
        return None
    path = Path(folder) / RECORD_NAME
    found = path if path.is_file() else _download(Path(folder))
    return Record.read(found) if found else None


def _download(folder: Path) -> Path | None:
    """growth.json of a component in the Hub's cache: diffusers downloads weights and config.json and nothing else."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    match = _CACHED.fullmatch(folder.as_posix())
    if match is None:
        return None
    name = f"{match['inner'] or ''}/{RECORD_NAME}".lstrip("/")
    try:
        return Path(hf_hub_download(match["id"].replace("--", "/", 1), name, revision=match["revision"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):  # most models have not grown
        return None


def _read(
    pipeline: Any, lora: str | Path | dict[str, torch.Tensor], fetch: dict[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """The LoRA as the pipeline itself reads it: in diffusers' layout, with its settings."""
    options: dict[str, Any] = {**fetch, "use_safetensors": True, "return_lora_metadata": True}
    parameters = inspect.signature(pipeline.lora_state_dict).parameters
    if "return_alphas" in parameters:
        options["return_alphas"] = True
    source = str(lora) if isinstance(lora, Path) else dict(lora) if isinstance(lora, dict) else lora
    try:
        state, *rest = pipeline.lora_state_dict(source, **options)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{_name(lora)}: can't be read: {first_line(error)}") from error
    if "return_alphas" in parameters and rest and rest[0]:
        state = {**state, **{key: torch.as_tensor(alpha) for key, alpha in rest[0].items()}}
    return state, rest[-1] if rest else None


def _load(pipeline: Any, state: dict[str, torch.Tensor], settings: Any, kwargs: dict[str, Any]) -> None:
    """By way of a file: only from one does diffusers take a LoRA's settings."""
    from safetensors.torch import save_file

    metadata = {"format": "pt", **({_METADATA: json.dumps(settings)} if settings else {})}
    with tempfile.TemporaryDirectory(prefix="modelgrow-lora-") as folder:
        save_file({key: tensor.detach().clone() for key, tensor in state.items()}, Path(folder) / _FILE, metadata)
        pipeline.load_lora_weights(folder, weight_name=_FILE, **kwargs)
