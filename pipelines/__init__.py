"""What diffusers loads and runs: verification of grown models, and generation."""

if not __name__.startswith("modelgrow."):
    raise ImportError("import this as 'modelgrow.pipelines'; run 'pip install -e .' in the clone first")

from .growth import load_growth
from .lora import load_lora

__all__ = ["load_growth", "load_lora"]
