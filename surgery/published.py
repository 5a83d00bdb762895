"""Models that their authors published in a form of their own, told by their config.json, which has no `_class_name`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLASSES = {"STDiT3": "STDiT3Transformer3DModel", "STDiT": "STDiTTransformer3DModel"}
"""Open-Sora's name of a class, in `model_type` or `architectures` -> ours, with the same tensors and config keys."""

_ARGUMENTS = {
    "STDiT3Transformer3DModel": {"depth", "input_sq_size", "skip_y_embedder"},
    "STDiTTransformer3DModel": {"depth", "space_scale", "time_scale"},
}
"""Arguments that no other published class has together, for a config that is only the constructor's arguments."""


def published_class(config: Mapping[str, Any]) -> str | None:
    """The class of ours that reads a published model; None for any other config."""
    if "_class_name" in config:
        return None
    named = [config.get("model_type"), *(config.get("architectures") or ())]
    if any(named):
        return next((_CLASSES[name] for name in named if isinstance(name, str) and name in _CLASSES), None)
    return next((ours for ours, keys in _ARGUMENTS.items() if keys <= config.keys()), None)
