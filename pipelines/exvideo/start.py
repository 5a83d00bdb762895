"""What denoising begins with where that is not noise alone: a clip to make anew, frames to pass through.

Shape letters: B clips, T frames, K of them pinned, C latent channels, H, W and h, w height and width of pixels and of
latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .pipeline import ExVideoPipeline

Generator = torch.Generator | list[torch.Generator] | None
Callback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
Clip = Sequence[Image.Image] | torch.Tensor
"""Pictures, or (T, 3, H, W) in [0, 1]."""

_ENCODED_AT_ONCE = 8
"""Frames. The encoder looks at each alone."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Latents at the first noise level, and what it takes to pin frames at the next ones."""

    latents: torch.Tensor
    """(B, T, C, h, w), divided by the scheduler's init_noise_sigma, which diffusers' pipeline multiplies by."""
    noise: torch.Tensor
    """(B, T, C, h, w)."""
    pinned: torch.Tensor
    """(K, C, h, w), without noise; K may be 0."""
    pinned_ids: Sequence[int]

    def pinning(self, then: Callback | None) -> Callback | None:
        """A callback that puts the pinned frames back before the next step, and then calls the user's."""
        if not self.pinned_ids:
            return then

        def on_step_end(pipeline: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            if step + 1 < pipeline.num_timesteps:
                sigma, latents = pipeline.scheduler.sigmas[step + 1], kwargs["latents"]
                latents[:, self.pinned_ids] = (self.pinned + sigma * self.noise[:, self.pinned_ids]).to(latents.dtype)
            return kwargs if then is None else then(pipeline, step, timestep, kwargs)

        return on_step_end


def prepare_start(
    pipeline: ExVideoPipeline,
    video: Clip | None,
    pinned_frames: Mapping[int, Image.Image],
    shape: tuple[int, int, int, int],
    generator: Generator,
    noise: torch.Tensor | None,
) -> Start:
    """Encode the clip and the pinned frames, and bring them to the first of the scheduler's noise levels.

    Args:
        pipeline: Its scheduler knows its steps already.
        video: The clip; None is noise alone.
        pinned_frames: Pictures by number of frame.
        shape: (B, T, H, W) of the clip to be made.
        generator: For the noise.
        noise: (B, T, C, h, w) to use instead.
    """
    batch, frames, height, width = shape
    device, dtype = pipeline._execution_device, pipeline.unet.dtype
    sigma, scale = pipeline.scheduler.sigmas[0], pipeline.scheduler.init_noise_sigma
    if noise is None:
        small = (side // pipeline.vae_scale_factor for side in (height, width))
        noise = randn_tensor(
            (batch, frames, pipeline.vae.config.latent_channels, *small), generator, device=device, dtype=dtype
        )
    noise = noise.to(device)
    latents = noise * scale
    if video is not None:
        latents = encode(pipeline, video[:frames], height, width) + sigma * noise
    ids = sorted(pinned_frames)
    pinned = latents.new_empty(0)
    if ids:
        pinned = encode(pipeline, [pinned_frames[number] for number in ids], height, width)
        latents[:, ids] = pinned + sigma * noise[:, ids]
    return Start(latents=latents / scale, noise=noise, pinned=pinned, pinned_ids=ids)


def encode(pipeline: ExVideoPipeline, pictures: Clip, height: int, width: int) -> torch.Tensor:
    """Latents (T, C, h, w) in the UNet's dtype, scaled as the pipeline's `video_scaling_factor` says."""
    pixels = pipeline.video_processor.preprocess(pictures, height=height, width=width)
    scale = pipeline.config.video_scaling_factor or pipeline.vae.config.scaling_factor
    with _upcast(pipeline.vae):
        parts = [
            pipeline.vae.encode(part.to(pipeline._execution_device, pipeline.vae.dtype)).latent_dist.mode()
            for part in pixels.split(_ENCODED_AT_ONCE)
        ]
    latents: torch.Tensor = (torch.cat(parts) * scale).to(pipeline.unet.dtype)
    return latents


def first_picture(pipeline: ExVideoPipeline, video: Clip) -> Any:
    """As the image that a clip starts from. CLIP's input is made from pictures, not from tensors of any size."""
    pixels = pipeline.video_processor.preprocess(video[:1])
    return pipeline.video_processor.postprocess(pixels, output_type="pil")


@contextmanager
def _upcast(vae: Any) -> Iterator[None]:
    """In float16 SVD's encoder overflows."""
    upcast = vae.dtype == torch.float16 and vae.config.force_upcast
    if upcast:
        vae.to(dtype=torch.float32)
    yield
    if upcast:
        vae.to(dtype=torch.float16)
