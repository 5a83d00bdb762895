"""From a checkpoint to the diffusers model that runs it."""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgrow.surgery import CheckpointError

if TYPE_CHECKING:
    import torch

    from modelgrow.surgery import Checkpoint

ALIGNMENT = 64
"""Bytes. What torch's own allocator gives; a mapped file gives whatever the header's length happens to be."""

_OF_VARIANT = re.compile(r"(?:diffusion_pytorch_)?model\.([\w.-]+?)(?:-[0-9]+-of-[0-9]+)?\.safetensors", re.ASCII)


def model_class(name: str) -> Any:
    """The class that config.json names, diffusers' or ours. Raises `CheckpointError` if there is none."""
    import diffusers  # which knows ours too, see `registry`

    found = getattr(diffusers, name, None)
    if not isinstance(found, type):
        raise CheckpointError(
            f"diffusers {diffusers.__version__} has no class {name!r}; config.json's _class_name is wrong, "
            "or needs a newer diffusers"
        )
    return found


def load_model(
    checkpoint: Checkpoint, *, dtype: torch.dtype, device: str | None = "cpu", quantization: Any = None
) -> Any:
    """Build a model for inference from the weights on disk.

    Args:
        checkpoint: A component's.
        dtype: Of its weights.
        device: Where it goes; None leaves it where it was loaded.
        quantization: diffusers' config of a quantization, for one model.

    Raises:
        CheckpointError: The weights are not the ones the class expects.
    """
    cls = model_class(str(checkpoint.class_name))
    with ExitStack() as stack:
        folder = checkpoint.path if checkpoint.path.is_dir() else _as_folder(checkpoint, stack)
        try:
            model, info = cls.from_pretrained(
                folder,
                torch_dtype=dtype,
                output_loading_info=True,
                local_files_only=True,
                quantization_config=quantization,
                **_variant_of(checkpoint),
            )
        except (ValueError, OSError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{checkpoint.path}: {cls.__name__} can't be built from it: {error}") from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            raise CheckpointError(
                f"{checkpoint.path}: {len(info[kind])} {kind.replace('_', ' ')} for {cls.__name__}, "
                f"such as {sorted(map(str, info[kind]))[0]}; config.json and weights do not belong together"
            )
    align(model)
    return model.eval() if device is None else model.eval().to(device)


def _variant_of(checkpoint: Checkpoint) -> dict[str, str]:
    """What diffusers must be told to open the checkpoint's files and no others."""
    names = [_OF_VARIANT.fullmatch(path.name) for path in checkpoint.files] if checkpoint.path.is_dir() else []
    return {"variant": names[0][1]} if names and names[0] else {}


def align(model: torch.nn.Module) -> None:
    """Give memory of their own to tensors that lie unaligned in a mapped file.

    CPU kernels take another path for those, and two equal models would differ in the last bit.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()


def _as_folder(checkpoint: Checkpoint, stack: ExitStack) -> Path:
    """A single file as the folder that `from_pretrained` wants: links, nothing copied."""
    from modelgrow.surgery import strict_json

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (folder / "diffusion_pytorch_model.safetensors").symlink_to(checkpoint.path.resolve())
    (folder / "config.json").write_text(strict_json.dump(dict(checkpoint.config)), encoding="utf-8")
    return folder
