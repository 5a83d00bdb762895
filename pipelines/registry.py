"""Classes of ours under diffusers' own name, where `DiffusionPipeline.from_pretrained` and AutoModel look for them.

`model_index.json` names the class of a pipeline without its package, and diffusers looks in `diffusers` only.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def register(is_ours: Callable[[str], bool]) -> None:
    """Let `diffusers.NAME` find `modelgrow.pipelines.NAME`, for the names of classes that `is_ours` accepts.

    diffusers itself comes first, so that nothing of it is ever replaced. Twice does no more than once.
    """
    diffusers = import_module("diffusers")
    stock = type(diffusers)
    if hasattr(stock, "modelgrow"):
        return

    def find(module: ModuleType, name: str) -> Any:
        try:
            return stock.__getattr__(module, name)
        except AttributeError:
            if not is_ours(name):
                raise
            return getattr(sys.modules[__package__], name)

    diffusers.__class__ = type(stock.__name__, (stock,), {"modelgrow": True, "__getattr__": find})
