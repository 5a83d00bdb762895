"""From what a user names to a diffusers pipeline that is ready to run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery import GenerateError, GrowError, SourceError, anatomies, open_checkpoint, open_source
from modelgrow.surgery.errors import first_line
from modelgrow.surgery.grown import stock_name
from modelgrow.surgery.hub import download, is_hub_id, open_repo
from modelgrow.surgery.hub_errors import explained
from modelgrow.surgery.selection import GENERATION_NAME
from modelgrow.surgery.source import PIPELINE_NAME

from .dtypes import resolve_dtype
from .foundation import foundation_path
from .models import align, model_class
from .quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

OFFLOADS = ("model", "group", "sequential")


def load_pipeline(
    model: str | Path | None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    variant: str | None = None,
    revision: str | None = None,
    offload: str | None = None,
    quantization: Any = None,
    components: Mapping[str, Any] | None = None,
    kind: type[DiffusionPipeline] | None = None,
) -> DiffusionPipeline:
    """Load a pipeline for inference, safetensors only.

    Equal weights give equal outputs to the bit, wherever they lie in their files: CPU kernels take another
    path for a memory-mapped tensor that is unaligned, so none is left so.

    Args:
        model: A pipeline folder or a Hub id; None is the foundation that comes with modelgrow.
        device: "cpu", "cuda:1" and so on as torch has it; "auto" is CUDA, else Apple's MPS, else the CPU.
        dtype: Of every component: "float32", "bfloat16" or "float16"; "auto" is bfloat16 on CUDA, else float32.
        variant: Weights variant, such as "fp16".
        revision: Branch, tag or commit of a Hub id.
        offload: "model", "group" or "sequential": keep weights in main memory, and move whole components, or layers
            of which the next is on its way already, or single layers to the device while they run.
        quantization: diffusers' `PipelineQuantizationConfig`.
        components: Some of them, already loaded, in the place of the folder's.
        kind: The pipeline's class, where that is not the folder's own.

    Raises:
        GenerateError: It is not there, is no pipeline, or can't be loaded.
    """
    place = check_offload(device, offload)
    given = dict(components or {})
    folder = locate(model, variant=variant, revision=revision, without=given)
    options = {"dtype": resolve_dtype(dtype, place), "variant": variant, "quantization_config": quantization}
    pipeline = _read(folder, kind, given, options)
    _check_weights(pipeline, folder, variant, given)
    if type(getattr(pipeline, "vae", None)).__name__ == "AutoencoderKLAllegro":
        pipeline.vae.enable_tiling()  # it can neither encode nor decode in another way
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            align(component)
    return put_on(pipeline, place, offload)


def check_offload(device: str, offload: str | None) -> torch.device:
    """The device. Raises `GenerateError` if weights can't wait for it in main memory."""
    if offload is not None and offload not in OFFLOADS:
        raise GenerateError(f"unknown offload {offload!r}; choose from {', '.join(OFFLOADS)}")
    place = resolve_device(device)
    if offload is not None and place.type == "cpu":
        raise GenerateError("offload keeps weights in main memory until the device needs them; here that is the CPU")
    return place


def resolve_device(name: str) -> torch.device:
    """The device that a name means here. Raises `GenerateError` if this machine does not have it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch built without CUDA asserts
        reason = str(error).strip().splitlines()[0]
        raise GenerateError(f"device {name!r} can't be used here: {reason}. Choose another, or 'auto'") from error
    return device


def locate(
    model: str | Path | None, *, variant: str | None = None, revision: str | None = None, without: Iterable[str] = ()
) -> Path:
    """The folder of a pipeline, downloaded into the Hub's cache if need be, but for the components in `without`.

    Raises:
        GenerateError: It is not there, or no pipeline.
    """
    if model is None:
        return foundation_path()
    path = Path(model)
    if (path / PIPELINE_NAME).is_file():
        return path
    if path.is_file():
        raise GenerateError(f"{path}: a file; generating needs a whole pipeline, a folder with {PIPELINE_NAME}")
    if path.is_dir():
        raise GenerateError(f"{path}: {_what_is(path)}")
    if not is_hub_id(str(model)):
        raise GenerateError(
            f"{model}: no such folder, and not a Hub id (those look like Wan-AI/Wan2.1-T2V-1.3B-Diffusers)"
        )
    return _download(str(model), variant, revision, without)


def _what_is(folder: Path) -> str:
    if (folder / "config.json").is_file() and (folder.parent / PIPELINE_NAME).is_file():
        return f"one component of a pipeline. Name the pipeline: {folder.parent}"
    if (folder / "config.json").is_file():
        return (
            "one model, not a pipeline: there is no text encoder, VAE and scheduler to run it with. Give --pipeline, "
            "the one that it belongs to; of a motion adapter, the Stable Diffusion pipeline to plug it into"
        )
    inside = [path.parent for path in sorted(folder.glob(f"*/{PIPELINE_NAME}"))]
    named = f". Name one of those in it: {', '.join(map(str, inside[:5]))}" if inside else ""
    return f"not a pipeline: there is no {PIPELINE_NAME} in it{named}"


def _download(repo_id: str, variant: str | None, revision: str | None, without: Iterable[str]) -> Path:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    skipped: dict[str, Any] = dict.fromkeys(without)
    with explained(repo_id, revision, raises=GenerateError):
        repo = open_repo(repo_id, revision)
        if not (repo.folder / PIPELINE_NAME).is_file():
            raise GenerateError(f"{repo_id}: {_what_is(repo.folder)}")
        kind: Any = _own_class(repo.folder) if skipped else DiffusionPipeline
        folder = kind.download(repo_id, variant=variant, revision=repo.commit, use_safetensors=True, **skipped)
    if GENERATION_NAME in (repo.sizes or ()):
        with suppress(SourceError):  # in a cache without it, out of reach, the pipeline's defaults do as well
            download(repo, [GENERATION_NAME])
    return Path(folder)


def _own_class(folder: Path) -> Any:
    """The pipeline's, by its model_index.json. `DiffusionPipeline` itself overlooks what it is given in the place of
    a component that is optional in that class, as Wan's transformers are."""
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    return model_class(str(DiffusionPipeline.load_config(str(folder)).get("_class_name")))


def _read(
    folder: Path, kind: type[DiffusionPipeline] | None, given: Mapping[str, Any], options: Mapping[str, Any]
) -> DiffusionPipeline:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from safetensors import SafetensorError

    try:
        with quietly():
            cls: Any = kind or (_own_class(folder / PIPELINE_NAME) if given else DiffusionPipeline)
            pipeline: DiffusionPipeline = cls.from_pretrained(
                str(folder), use_safetensors=True, local_files_only=True, **given, **options
            )
            return pipeline
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, AttributeError, ImportError) as error:
        reason = _explain(folder, options["variant"], error)
        raise GenerateError(f"{folder}: the pipeline can't be loaded: {reason}") from error


def _explain(folder: Path, variant: str | None, error: BaseException) -> str:
    """Our own look at the headers names a damaged file and what is wrong with it; loaders often do not."""
    try:
        open_source(str(folder), variant=variant)
    except GrowError as found:
        return str(found)
    return first_line(error)


def _check_weights(pipeline: DiffusionPipeline, folder: Path, variant: str | None, given: Collection[str] = ()) -> None:
    """diffusers only warns where weights are missing or left over, and runs without them or fails much later."""
    for name, component in pipeline.components.items():
        if name in given or not isinstance(component, torch.nn.Module):
            continue
        expected = component.state_dict()
        fault, keys = "is not in the weights", [key for key, tensor in expected.items() if tensor.is_meta]
        if not keys and stock_name(type(component).__name__) in anatomies():
            found = open_checkpoint(folder / name, variant=_variant_of(folder / name, variant)).tensors
            fault, keys = "is in the weights for nothing", [key for key in found if key not in expected]
        if keys:
            raise GenerateError(
                f"{folder / name}: {keys[0]} {fault}, by what config.json says of {type(component).__name__} "
                f"({len(keys)} such in all). Config and weights do not belong together"
            )


def _variant_of(folder: Path, variant: str | None) -> str | None:
    """A pipeline rarely has every component in the variant; diffusers too falls back to the plain file."""
    return variant if variant and any(folder.glob(f"*.{variant}*")) else None


def put_on(pipeline: DiffusionPipeline, device: torch.device, offload: str | None) -> DiffusionPipeline:
    """The pipeline, on the device or waiting for it. Raises `GenerateError` if it can't be."""
    try:
        if offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
        elif offload == "group":
            # With a stream the next layer travels while this one computes, which CUDA alone can do.
            pipeline.enable_group_offload(device, offload_type="leaf_level", use_stream=device.type == "cuda")
        elif offload == "sequential":
            pipeline.enable_sequential_cpu_offload(device=device)
        else:
            pipeline.to(device)
    except torch.OutOfMemoryError as error:
        raise GenerateError(
            f"{type(pipeline).__name__} does not fit into the memory of {device}; "
            "try --offload model, then group or --low-memory"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise GenerateError(f"{type(pipeline).__name__} can't be moved to {device}: {first_line(error)}") from error
    return pipeline
