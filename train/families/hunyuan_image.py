"""SkyReels, HunyuanVideo from a picture; what HunyuanSkyreelsImageToVideoPipeline does around its transformer.

The picture is the clip's own first frame: its latents beside the first frame's, zeros beside the others, without noise,
as the pipeline has them; the posterior's mean, where the pipeline draws from it.

Shape letters: B samples, C channels, h, w height and width of the latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from . import hunyuan_video
from .hunyuan_video import encode_text, encode_video
from .latents import then_zeros

if TYPE_CHECKING:
    from .family import Text

__all__ = ["encode_conditions", "encode_text", "encode_video", "predict"]

LATENTS = "kept_image_latents"
"""(B, C, 1, h, w), scaled."""


def encode_conditions(pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None]) -> dict[str, torch.Tensor]:
    """The first frame's latents."""
    return {LATENTS: encode_video(pipeline, pixels[:, :, :1])}


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    image = then_zeros(text[LATENTS], noisy)
    return hunyuan_video.predict(pipeline, model, torch.cat([noisy, image], dim=1), timesteps, text)
