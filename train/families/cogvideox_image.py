"""CogVideoX 5B and 1.5, image to video; what CogVideoXImageToVideoPipeline does before and around its transformer.

The picture is the clip's own first frame: its latents beside the first frame's, zeros beside the others. They are the
posterior's mean, where the pipeline draws from it, and without noise, as the pipeline has them. The published training
puts noise on the picture before it encodes it, of a deviation exp(n) with n from N(-3, 0.5); latents that are computed
once, as here, would have the same noise each time.

Shape letters: B samples, C channels, T frames, F latent frames, H, W in pixels, h, w in latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from modelgrow.surgery import TrainError

from . import cogvideox
from .cogvideox import encode_text
from .latents import mean_of, then_zeros

if TYPE_CHECKING:
    from .family import Text

__all__ = ["encode_conditions", "encode_text", "encode_video", "predict"]

LATENTS = "kept_image_latents"
"""(B, C, 1, h, w), scaled."""


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    """See `Family`. Raises `TrainError` if the clips are not of the size that the model has learned positions for."""
    config, factor = pipeline.transformer.config, pipeline.vae_scale_factor_spatial
    wanted = (config.sample_height * factor, config.sample_width * factor)
    if config.use_learned_positional_embeddings and tuple(pixels.shape[3:]) != wanted:
        raise TrainError(
            f"clips of {pixels.shape[3]} x {pixels.shape[4]} pixels; the transformer's learned positions "
            f"(use_learned_positional_embeddings) are of {wanted[0]} x {wanted[1]}: set height and width to these"
        )
    return cogvideox.encode_video(pipeline, pixels)


def encode_conditions(pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None]) -> dict[str, torch.Tensor]:
    """The first frame's latents, scaled as the model was trained on pictures."""
    vae = pipeline.vae
    latents = mean_of(vae, pixels[:, :, :1])
    factor = pipeline.vae_scaling_factor_image
    # CogVideoX-5B-I2V was trained on pictures divided by the factor that clips are multiplied by.
    return {LATENTS: latents / factor if vae.config.invert_scale_latents else latents * factor}


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    image = then_zeros(text[LATENTS], noisy)
    return cogvideox.predict(pipeline, model, torch.cat([noisy, image], dim=1), timesteps, text)
