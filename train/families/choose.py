"""Which job a model class does in its pipeline, where it can do several: told by its config and model_index.json.

What can't be trained is refused here, before anything is loaded. Channels are counted by the model's own
`out_channels`, the latents' C: a transformer that reads more reads a picture, or a clip, beside the noisy latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from modelgrow.surgery import TrainError
from modelgrow.surgery.grown import stock_name

from . import (
    cogvideox,
    cogvideox_image,
    cosmos,
    cosmos_transfer,
    hunyuan_image,
    hunyuan_llava,
    hunyuan_video,
    wan,
    wan_first_frame,
    wan_image,
)

Said = Mapping[str, Any]
IMAGE_TO_VIDEO = "ImageToVideo"
"""In the names of diffusers' pipelines that start from a picture."""
HUNYUAN_LLAVA = "HunyuanVideoImageToVideoPipeline"
"""Whose language model reads the picture too."""


def _wan(config: Said, index: Said) -> Any:
    read, made = _channels(config)
    from_picture = IMAGE_TO_VIDEO in _pipeline(index)
    if read == made:
        if index.get("expand_timesteps"):
            return wan_first_frame
        if not from_picture:
            return wan
        raise TrainError(
            f"the transformer reads {read} channels, which is text to video, but model_index.json says "
            f"{_pipeline(index)}; write WanPipeline there, or, for Wan 2.2 TI2V-5B, set expand_timesteps to true"
        )
    if read <= 2 * made or index.get("expand_timesteps"):
        _refuse(index, read, f"{made}, and image to video {2 * made} and one for each frame that the VAE joins")
    if from_picture:
        return wan_image
    raise TrainError(
        f"the transformer reads {read} channels, {made} of noise and the others of a picture, but model_index.json "
        f"says {_pipeline(index)}; write WanImageToVideoPipeline there"
    )


def _cogvideox(config: Said, index: Said) -> Any:
    return _text_or_picture(config, index, CogVideoXPipeline=cogvideox, CogVideoXImageToVideoPipeline=cogvideox_image)


def _hunyuan_video(config: Said, index: Said) -> Any:
    condition = config.get("image_condition_type")
    if condition is not None or _pipeline(index) == HUNYUAN_LLAVA:
        return _hunyuan_llava(condition, *_channels(config), index)
    return _text_or_picture(
        config, index, HunyuanVideoPipeline=hunyuan_video, HunyuanSkyreelsImageToVideoPipeline=hunyuan_image
    )


def _cosmos(_config: Said, index: Said) -> Any:
    return cosmos_transfer if _pipeline(index) == "Cosmos2_5_TransferPipeline" else cosmos


def _hunyuan_llava(condition: Any, read: int, made: int, index: Said) -> Any:
    if condition is None or _pipeline(index) != HUNYUAN_LLAVA:
        raise TrainError(
            f"the transformer's image_condition_type is {condition}, but model_index.json says {_pipeline(index)}; "
            f"{HUNYUAN_LLAVA} goes with latent_concat and token_replace, and no other pipeline does"
        )
    if read != {"latent_concat": 2 * made + 1, "token_replace": made}.get(condition):
        _refuse(index, read, f"{made} with token_replace, and {2 * made + 1} with latent_concat")
    return hunyuan_llava


CHOICES: Mapping[str, Callable[[Said, Said], Any]] = {
    "WanTransformer3DModel": _wan,
    "CogVideoXTransformer3DModel": _cogvideox,
    "CosmosTransformer3DModel": _cosmos,
    "HunyuanVideoTransformer3DModel": _hunyuan_video,
}


def _text_or_picture(config: Said, index: Said, **families: Any) -> Any:
    """The family of text, whose model reads noisy latents alone, or that of a picture, whose latents stand beside them.

    Args:
        config: The model's.
        index: model_index.json.
        families: The two, by the pipelines that they are of.
    """
    read, made = _channels(config)
    (text, of_text), (picture, of_picture) = families.items()
    from_picture = IMAGE_TO_VIDEO in _pipeline(index)
    if read == made and not from_picture:
        return of_text
    if read == 2 * made and from_picture:
        return of_picture
    _refuse(index, read, f"{made} with {text}, and {2 * made} with {picture}")


def _channels(config: Said) -> tuple[int, int]:
    """What goes in and what comes out; all of diffusers' classes here have 16 as their default."""
    read = int(config.get("in_channels") or 16)
    return read, int(config.get("out_channels") or read)


def _pipeline(index: Said) -> str:
    return stock_name(str(index.get("_class_name") or "no pipeline"))


def _refuse(index: Said, read: int, trained: str) -> NoReturn:
    raise TrainError(
        f"the transformer reads {read} channels, in {_pipeline(index)}; what can be trained here reads {trained}"
    )
