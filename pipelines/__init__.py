"""What diffusers loads and runs: grown classes, Open-Sora, ExVideo, generation, and verification.

    import modelgrow.pipelines
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained("wan-suffix8-slot")

The import is all it takes: diffusers then finds the classes of this package under their names.
"""

if not __name__.startswith("modelgrow."):
    raise ImportError("import this as 'modelgrow.pipelines'; run 'pip install -e .' in the clone first")

from importlib import import_module
from typing import Any

from modelgrow.surgery.grown import PREFIX, stock_name

from . import registry

_MODULES = {
    "AutoencoderKLOpenSora": "open_sora.vae",
    "ExVideoPipeline": "exvideo.pipeline",
    "ExVideoUNetSpatioTemporalConditionModel": "exvideo.unet",
    "OpenSoraPipeline": "open_sora.pipeline",
    "STDiT3Transformer3DModel": "open_sora.stdit3",
    "STDiTTransformer3DModel": "open_sora.stdit",
    "load_growth": "growth",
    "load_lora": "lora",
}
"""Public name -> module of this package, imported when it is asked for: most need torch and diffusers."""

__all__ = sorted(_MODULES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name == "ModelMixin":
        # diffusers takes a module for a library of models if it finds this name in it.
        from diffusers import ModelMixin

        return ModelMixin
    if name.startswith(PREFIX):
        return _grown(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


def _grown(name: str) -> Any:
    """The class that is generated from the stock model or pipeline whose name follows "Grown"."""
    diffusers = import_module("diffusers")  # which knows ours too, see `registry`
    stock = getattr(diffusers, stock_name(name), None)
    if not isinstance(stock, type) or stock.__name__.startswith(PREFIX):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: there is no class to grow it from")
    if issubclass(stock, diffusers.DiffusionPipeline):
        return import_module(f"{__name__}.grown.pipeline").grown_pipeline(stock)
    if not issubclass(stock, diffusers.ModelMixin):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {stock.__name__} is no model")
    return import_module(f"{__name__}.grown").grown_class(stock)


def _is_class(name: str) -> bool:
    return (name in _MODULES and name[0].isupper()) or (name.startswith(PREFIX) and name != PREFIX)


registry.register(_is_class)
