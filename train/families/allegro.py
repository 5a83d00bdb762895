"""Allegro, text to video; what AllegroPipeline does before and around its transformer.

Its VAE encodes tiles of one size that overlap, and leaves empty what lies past the last whole tile, so clips have to
be of a size that tiles fill: the published 88 x 720 x 1280, or 24, 40, 56 ... frames of 320 or 720 x 320, 560, 800 ...

Shape letters: B samples, L tokens, D width of their states.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from diffusers.utils import is_bs4_available, is_ftfy_available

from modelgrow.surgery import TrainError

from ..objectives.min_snr import MinSnr
from .latents import mean_of_each, scaled
from .text import states_and_mask

if TYPE_CHECKING:
    from ..settings import Settings
    from .family import Text

CAUSAL = False


def objective(pipeline: Any, settings: Settings) -> MinSnr:
    """Weighted as in the published script for training it further (rhymes-ai/Allegro, train.py), whose timesteps are
    even too. Its offset of 0.02 a clip and channel to the noise is left out: the sampler starts without one."""
    return MinSnr.of(pipeline.scheduler)


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, L, D) and `mask` (B, L)."""
    # Captions are cleaned unless the caller of the pipeline says otherwise, or the packages for it are missing.
    return states_and_mask(pipeline, captions, clean_caption=is_bs4_available() and is_ftfy_available())


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Raises `TrainError` if tiles do not fill the clips."""
    _check_tiles(pipeline, tuple(pixels.shape[2:]))
    # It takes one clip at a time.
    return scaled(pipeline.vae, mean_of_each(pipeline.vae, pixels))


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    batch, _, frames, height, width = noisy.shape
    scale = pipeline.vae_scale_factor_spatial
    output: torch.Tensor = model(
        hidden_states=noisy,
        encoder_hidden_states=text["states"][:, None],
        encoder_attention_mask=text["mask"],
        timestep=timesteps,
        image_rotary_emb=pipeline._prepare_rotary_positional_embeddings(
            batch, height * scale, width * scale, frames, noisy.device
        ),
        return_dict=False,
    )[0]
    return output


def _check_tiles(pipeline: Any, sizes: tuple[int, ...]) -> None:
    """`sizes`: frames, height and width of the clips."""
    tile, step = pipeline.vae.kernel, pipeline.vae.stride
    if all(size >= side and (size - side) % way == 0 for size, side, way in zip(sizes, tile, step, strict=True)):
        return
    side = pipeline.vae_scale_factor_spatial * pipeline.transformer.config.patch_size
    factors = pipeline.vae_scale_factor_temporal, side, side
    frames, height, width = map(_filled, sizes, tile, step, factors)
    raise TrainError(
        f"clips of {sizes[0]} frames of {sizes[1]} x {sizes[2]} can't be encoded whole: this VAE works in tiles of "
        f"{tile[0]} frames of {tile[1]} x {tile[2]} that begin every {step[0]} frames, {step[1]} rows and {step[2]} "
        f"columns, and leaves the rest empty. Set num_frames {frames}, height {height} and width {width}"
    )


def _filled(size: int, tile: int, step: int, factor: int) -> int:
    """The largest size up to this one, or the smallest there is, that tiles fill and the model takes."""
    way = math.lcm(step, factor)
    return tile + max(0, (size - tile) // way) * way
