"""Whether a loaded model can be taken apart: nothing that was installed on it would be lost on the way."""

from __future__ import annotations

from typing import Any

from modelgrow.surgery import CheckpointError


def check_ready(model: Any, where: str, pipeline: Any = None) -> None:
    """Refuse a model that something else has its hands on.

    Args:
        model: The component.
        where: What to call it.
        pipeline: The pipeline it is part of.

    Raises:
        CheckpointError: It is offloaded, quantised, compiled, has a LoRA or a cache.
    """
    for is_there, what in (
        (hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None, "compiled"),
        (getattr(model, "_hf_peft_config_loaded", False), "carrying a LoRA (load it afterwards, with load_lora)"),
        (getattr(model, "hf_quantizer", None) is not None, "quantised (apply the growth with 'grow apply' instead)"),
        (len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1, "spread over several devices"),
        (bool(getattr(pipeline, "_all_hooks", ())), "offloaded"),
        (_has_hooks(model), "offloaded, cached or cast layer by layer"),
        (any(tensor.is_meta for tensor in model.parameters()), "without weights in memory"),
    ):
        if is_there:
            raise CheckpointError(f"{where} is {what}: call load_growth first, on the model as it was loaded")


def _has_hooks(model: Any) -> bool:
    """accelerate's hooks (offloading) or diffusers' (group offloading, caches, layerwise casting)."""
    return any(
        hasattr(module, "_hf_hook") or getattr(getattr(module, "_diffusers_hook", None), "hooks", None)
        for module in model.modules()
    )
