"""Image to video, and video to better video, with ExVideo.

Shape letters: B clips, T frames, C latent channels, H, W and h, w height and width of pixels and of latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    StableVideoDiffusionPipelineOutput,
)
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from .checks import check_call, check_side
from .decode import CHUNK, decode_in_chunks
from .latents import post_process, sigmas_from
from .start import Callback, Generator, Start, first_picture, prepare_start


class ExVideoPipeline(StableVideoDiffusionPipeline):
    """Stable Video Diffusion's pipeline for clips of 128 frames and more (arXiv 2406.14130).

    Besides a clip from an image, it makes a clip anew at a higher resolution with the same weights (`video` and
    `strength`: the paper's second stage). What comes out of the denoising is normalized frame by frame, multiplied by
    `contrast`, and decoded in overlapping chunks. A stock SVD UNet runs in it as well.

    Args:
        vae: As in SVD; so are image_encoder, scheduler and feature_extractor.
        unet: `ExVideoUNetSpatioTemporalConditionModel`, or SVD's own.
        contrast: What latents are multiplied by unless a call says otherwise: 1.2 for ExVideo's released weights,
            1.0 for weights trained here. The reference multiplies by 1.2 against gray clips. They are gray most
            likely because its training script scaled latents by 0.13025, the factor of SDXL's VAE, where SVD's is
            0.18215: the released weights make latents that are too small. `grow train` scales as SVD does.
        video_scaling_factor: What the latents of `video` and `pinned_frames` are scaled by; None is the VAE's own
            factor. The released weights know clips scaled by 0.13025, see above.
    """

    __module__ = "modelgrow.pipelines"

    def __init__(
        self,
        vae: AutoencoderKLTemporalDecoder,
        image_encoder: CLIPVisionModelWithProjection,
        unet: UNetSpatioTemporalConditionModel,
        scheduler: EulerDiscreteScheduler,
        feature_extractor: CLIPImageProcessor,
        contrast: float = 1.0,
        video_scaling_factor: float | None = None,
    ) -> None:
        super().__init__(
            vae=vae,
            image_encoder=image_encoder,
            unet=unet,
            scheduler=scheduler,
            feature_extractor=feature_extractor,
        )
        self.register_to_config(contrast=contrast, video_scaling_factor=video_scaling_factor)

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | list[Image.Image] | torch.Tensor | None = None,
        height: int = 512,
        width: int = 512,
        num_frames: int | None = None,
        num_inference_steps: int = 50,
        sigmas: list[float] | None = None,
        guidance_scale: float = 2.0,
        min_guidance_scale: float | None = None,
        max_guidance_scale: float | None = None,
        fps: int = 30,
        motion_bucket_id: int = 127,
        noise_aug_strength: float = 0.02,
        video: list[Image.Image] | torch.Tensor | None = None,
        strength: float = 0.5,
        pinned_frames: Mapping[int, Image.Image] | None = None,
        post_normalize: bool = True,
        contrast: float | None = None,
        decode_chunk_size: int = CHUNK,
        decode_overlap: int | None = None,
        num_videos_per_prompt: int = 1,
        generator: Generator = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Make a clip from an image, or from a clip.

        What is not explained here is as in `StableVideoDiffusionPipeline`.

        Args:
            image: The first frame; it may be left out where there is a `video`, whose first frame it then is.
            height: In pixels, a multiple of 64 (of what the UNet halves, in general).
            width: In pixels, likewise.
            num_frames: None is the video's, or as many as the UNet's position tables have rows for.
            guidance_scale: Constant over the clip, as the released weights want it. The next two replace it at the
                first and at the last frame; between them it is linear, as it is in SVD from 1 to 3.
            min_guidance_scale: At the first frame.
            max_guidance_scale: At the last frame.
            video: The clip to start from: pictures, or (T, 3, H, W) in [0, 1].
            strength: How far the clip is taken back to noise before it is made anew: above 0, at most 1.
            pinned_frames: Pictures that the clip must pass through, by the number of the frame: before each step they
                replace what has become of those frames.
            post_normalize: Give each frame the clip's mean and standard deviation, in latents.
            contrast: What latents are multiplied by then; None is the pipeline's own, see the class.
            decode_chunk_size: Frames decoded at a time.
            decode_overlap: Frames that neighboring chunks share; None is a quarter of a chunk.

        Raises:
            GenerateError: The clip can't be made of that size or length, or from what is given.
        """
        num_frames = num_frames or (len(video) if video is not None else self._most_frames())
        check_call(
            self,
            image=image,
            video=video,
            pinned_frames=pinned_frames or {},
            size=(height, width),
            num_frames=num_frames,
            strength=strength,
        )
        if video is not None and strength < 1:
            sigmas = sigmas_from(self.scheduler, num_inference_steps, strength)
        start: Start | None = None
        if video is not None or pinned_frames:
            if image is None and video is not None:
                image = first_picture(self, video)
            steps = {"num_inference_steps": num_inference_steps} if sigmas is None else {"sigmas": sigmas}
            self.scheduler.set_timesteps(device=self._execution_device, **steps)
            shape = (num_videos_per_prompt, num_frames, height, width)
            start = prepare_start(self, video, pinned_frames or {}, shape, generator, latents)
            latents = start.latents
        denoised = super().__call__(
            image,
            height=height,
            width=width,
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            sigmas=sigmas,
            min_guidance_scale=guidance_scale if min_guidance_scale is None else min_guidance_scale,
            max_guidance_scale=guidance_scale if max_guidance_scale is None else max_guidance_scale,
            fps=fps,
            motion_bucket_id=motion_bucket_id,
            noise_aug_strength=noise_aug_strength,
            num_videos_per_prompt=num_videos_per_prompt,
            generator=generator,
            latents=latents,
            output_type="latent",
            callback_on_step_end=callback_on_step_end if start is None else start.pinning(callback_on_step_end),
            callback_on_step_end_tensor_inputs=[*{"latents", *(callback_on_step_end_tensor_inputs or ())}],
            return_dict=False,
        )
        factor = self.config.contrast if contrast is None else contrast
        frames = post_process(denoised, normalize=post_normalize, contrast=factor)
        if output_type != "latent":
            pixels = self.decode_latents(frames, num_frames, decode_chunk_size, decode_overlap)
            frames = self.video_processor.postprocess_video(video=pixels, output_type=output_type)
            self.maybe_free_model_hooks()
        return StableVideoDiffusionPipelineOutput(frames=frames) if return_dict else frames

    def decode_latents(
        self, latents: torch.Tensor, num_frames: int, decode_chunk_size: int = CHUNK, overlap: int | None = None
    ) -> torch.Tensor:
        """Latents (B, T, C, h, w) to pixels (B, 3, T, H, W), float32 in main memory; see `decode_in_chunks`."""

        def decode(chunk: torch.Tensor) -> torch.Tensor:
            pixels: torch.Tensor = self.vae.decode(
                1 / self.vae.config.scaling_factor * chunk, num_frames=len(chunk)
            ).sample
            return pixels

        clips = [decode_in_chunks(clip, decode, chunk_size=decode_chunk_size, overlap=overlap) for clip in latents]
        return torch.stack(clips).transpose(1, 2)

    def _most_frames(self) -> int:
        return int(self.unet.config.get("num_position_frames", self.unet.config.num_frames))

    def check_size(self, height: int, width: int) -> None:
        """Raises `GenerateError` unless clips can have that many pixels."""
        grain = self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        check_side("height", height, grain)
        check_side("width", width, grain)
