"""What a recipe is: config and noise in, keyword arguments for `forward` out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Config = Mapping[str, Any]
Randn = Callable[..., "Tensor"]
"""Shape as separate numbers -> standard normal noise."""
Inputs = dict[str, Any]
Recipe = Callable[[Config, Randn], Inputs]
Runner = Callable[[Any, Inputs], tuple["Tensor", ...]]
"""Model and inputs -> outputs, for a class that can't just be called."""

B, F, L = 2, 3, 8
"""Samples, latent frames, text tokens."""
