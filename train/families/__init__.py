"""The kinds of pipelines that train, one file each with the same three functions (see `family`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from modelgrow.surgery import TrainError
from modelgrow.surgery.grown import stock_name

from . import (
    allegro,
    animatediff,
    cogvideox,
    cosmos,
    easyanimate,
    flux,
    hunyuan_video,
    hunyuan_video15,
    kandinsky5,
    latte,
    ltx,
    ltx2,
    mochi,
    open_sora,
    pixart,
    sana_video,
    sd3,
    svd,
    wan,
    wan_animate,
    wan_vace,
)
from .choose import CHOICES
from .family import trait

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .family import Family

__all__ = ["FAMILIES", "family_of", "trait"]

FAMILIES: dict[str, Any] = {
    "WanTransformer3DModel": wan,
    "WanVACETransformer3DModel": wan_vace,
    "WanAnimateTransformer3DModel": wan_animate,
    "CogVideoXTransformer3DModel": cogvideox,
    "LTXVideoTransformer3DModel": ltx,
    "LTX2VideoTransformer3DModel": ltx2,
    "AllegroTransformer3DModel": allegro,
    "CosmosTransformer3DModel": cosmos,
    "EasyAnimateTransformer3DModel": easyanimate,
    "FluxTransformer2DModel": flux,
    "HunyuanVideoTransformer3DModel": hunyuan_video,
    "HunyuanVideo15Transformer3DModel": hunyuan_video15,
    "Kandinsky5Transformer3DModel": kandinsky5,
    "LatteTransformer3DModel": latte,
    "MochiTransformer3DModel": mochi,
    "PixArtTransformer2DModel": pixart,
    "Transformer2DModel": pixart,  # as published
    "SanaVideoTransformer3DModel": sana_video,
    "SD3Transformer2DModel": sd3,
    "STDiT3Transformer3DModel": open_sora,
    "STDiTTransformer3DModel": open_sora,
    "UNetMotionModel": animatediff,
    "UNetSpatioTemporalConditionModel": svd,
    "ExVideoUNetSpatioTemporalConditionModel": svd,
}


def family_of(
    class_name: str, config: Mapping[str, Any] | None = None, index: Mapping[str, Any] | None = None
) -> Family:
    """The family of a model class.

    Args:
        class_name: The model's.
        config: Its config, which tells what it does where its class can do several things; None is text to video.
        index: model_index.json of its pipeline.

    Raises:
        TrainError: It is not trained here yet, or not in that pipeline.
    """
    stock = stock_name(class_name)
    if stock not in FAMILIES:
        raise TrainError(f"{class_name} can grow, but not be trained here yet; these can: {', '.join(FAMILIES)}")
    if stock in CHOICES and config is not None:
        return cast("Family", CHOICES[stock](config, index or {}))
    return cast("Family", FAMILIES[stock])
