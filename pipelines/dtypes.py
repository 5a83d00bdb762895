"""What dtypes are called: by users, and in safetensors files."""

from __future__ import annotations

import torch

from modelgrow.surgery import GenerateError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""That a model can be asked to run in, by the names that `--dtype` takes."""

STORED: dict[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""What safetensors calls a dtype."""
FROM_STORED = {name: dtype for dtype, name in STORED.items()}


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype that a name means on a device. Raises `GenerateError` if there is none of that name."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise GenerateError(f"unknown dtype {name!r}; choose from auto, {', '.join(DTYPES)}")
    return DTYPES[name]
