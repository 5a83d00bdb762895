"""Grown classes: a stock model with room for a language model's states and for longer clips.

    grown_class(WanTransformer3DModel)      # GrownWanTransformer3DModel, also modelgrow.pipelines.GrownWan...

Depth alone needs no class. A slot (`grow attach-llm`) or a frame extension (`grow extend-frames`) does, and it is
generated here, the same way for every architecture.
"""

from .model import GrownModel, grown_class, is_grown, stock_class

__all__ = ["GrownModel", "grown_class", "is_grown", "stock_class"]
