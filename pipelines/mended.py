"""What keeps a pipeline of diffusers from running at all, put right for the time of a call."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

from modelgrow.surgery.grown import stock_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_TOO_MUCH = "text_encoder_index"


@contextmanager
def mended(pipeline: Any) -> Iterator[None]:
    """Inside, the pipeline can be called.

    EasyAnimateControlPipeline of diffusers 0.42 hands its own `encode_prompt` an argument that this does not take
    (which of two text encoders; there is one), and decodes with a method that it does not have.
    """
    missing = _missing(pipeline) if stock_name(type(pipeline).__name__) == "EasyAnimateControlPipeline" else {}
    for name, method in missing.items():
        setattr(pipeline, name, method)
    try:
        yield
    finally:
        for name in missing:
            delattr(pipeline, name)


def _missing(pipeline: Any) -> dict[str, Any]:
    methods: dict[str, Any] = {}
    if _TOO_MUCH not in inspect.signature(pipeline.encode_prompt).parameters:
        methods["encode_prompt"] = _without(pipeline.encode_prompt)
    if not hasattr(pipeline, "decode_latents"):
        methods["decode_latents"] = lambda latents: _decode(pipeline.vae, latents)
    return methods


def _without(method: Any) -> Any:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **{name: value for name, value in kwargs.items() if name != _TOO_MUCH})

    return call


def _decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """As in EasyAnimate's other two pipelines."""
    video: torch.Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return video
