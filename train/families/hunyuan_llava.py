"""HunyuanVideo from a picture; what HunyuanVideoImageToVideoPipeline does before and around its transformer.

Its language model, a LLaVA, reads the picture and the prompt together, so every caption is read beside its own clip's
first frame. A caption that is dropped is what the pipeline calls unconditional: the empty prompt beside a black
picture. The picture's latents stay. The transformer has them by its config's `image_condition_type`: "latent_concat",
in channels beside the noise, or "token_replace", as the first latent frame, told timestep 0, which it need not answer.

They are of the picture by itself, as in the pipeline: the VAE's norms mix the frames of a clip, so the first latent
frame of the clip is another. The model is told a guidance of 6, if it is told one, as in its own training
(HunyuanVideo-I2V, `run_train_image2video_lora.sh`); the pipeline's default is 1.

Shape letters: B samples, C channels, T frames in pixels, F latent frames, h, w height and width of the latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from modelgrow.surgery import TrainError

from ..objectives import scheduled
from ..objectives.first_frame_flow import first_frame_flow
from . import hunyuan_video
from .hunyuan_video import encode_video
from .latents import then_zeros

if TYPE_CHECKING:
    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text

__all__ = ["encode_captions", "encode_conditions", "encode_text", "encode_video", "objective", "predict"]

LATENTS = "kept_image_latents"
"""(B, C, 1, h, w), scaled."""
EVERY_NTH = {"latent_concat": 2, "token_replace": 4}
"""Of the picture's tokens; the others are left out. By `image_condition_type`, as in the pipeline's call."""


def objective(pipeline: Any, settings: Settings) -> Objective:
    """The scheduler's flow; where the first latent frame is the picture, of the others alone.

    Raises:
        TrainError: Samples without a picture are asked for, or the scheduler is none of rectified flow.
    """
    if settings.first_frame not in (None, 1.0):
        raise TrainError(
            f"first_frame is {settings.first_frame}, but this model reads a picture in every sample; leave it out"
        )
    if _condition(pipeline) == "token_replace":
        return first_frame_flow(pipeline, settings)
    return scheduled(pipeline, settings)


def encode_captions(pipeline: Any, captions: list[str], pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Captions, each read beside its clip's first frame."""
    return _read(pipeline, captions, pipeline.video_processor.postprocess(pixels[:, :, 0], output_type="pil"))


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """Captions without clips, beside a black picture. Of what size does not matter: what reads it scales it."""
    return _read(pipeline, captions, [Image.new("RGB", (64, 64))] * len(captions))


def _read(pipeline: Any, captions: list[str], pictures: list[Image.Image]) -> dict[str, torch.Tensor]:
    """One by one: of several prompts, the pipeline loses its place in those that it has to cut off."""
    every = EVERY_NTH[_condition(pipeline)]
    found = [
        pipeline.encode_prompt(picture, [caption], image_embed_interleave=every)
        for caption, picture in zip(captions, pictures, strict=True)
    ]
    states, pooled, masks = (torch.cat(parts) for parts in zip(*found, strict=True))
    return {"states": states, "pooled": pooled, "mask": masks}


def encode_conditions(pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None]) -> dict[str, torch.Tensor]:
    """The picture's latents.

    Raises:
        TrainError: The clips are single frames, which leave nothing to make.
    """
    if pixels.shape[2] == 1:
        raise TrainError("clips of one frame: this model makes the frames behind a first one; set frames to 5 or more")
    return {LATENTS: encode_video(pipeline, pixels[:, :, :1])}


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """`timesteps`: (B,), or (B, F), 0 where a frame is given."""
    told = timesteps.amax(dim=1) if timesteps.ndim == 2 else timesteps
    image = text[LATENTS].to(noisy.dtype)
    if _condition(pipeline) == "token_replace":
        seen = torch.cat([image, noisy[:, :, 1:]], dim=2)
    else:
        given = torch.cat([image, torch.ones_like(image[:, :1])], dim=1)  # with a mask
        seen = torch.cat([noisy, then_zeros(given, noisy)], dim=1)
    return hunyuan_video.predict(pipeline, model, seen, told, text)


def _condition(pipeline: Any) -> str:
    found: str = pipeline.transformer.config.image_condition_type
    return found
