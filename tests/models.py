"""Tiny models of real classes, diffusers' and ours, every weight randomised.

Fresh initialisations hide faults: a zero modulation makes any surgery look exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from modelgrow.pipelines.models import model_class


def build(class_name: str, config: Mapping[str, Any], *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A model whose parameters and stored tables are all noise."""
    model = model_class(class_name)(**config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return model.to(dtype).eval()


def noisy(model: Any, seed: int, *, scale: float = 0.3) -> Any:
    """A model of transformers, say, with all of its parameters noise of that standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
    return model.eval()


def save(
    folder: Path, class_name: str, config: Mapping[str, Any], *, dtype: torch.dtype = torch.float32, shard: str = "1GB"
) -> Path:
    """Write such a model as diffusers would."""
    build(class_name, config, dtype=dtype).save_pretrained(folder, max_shard_size=shard)
    return folder
