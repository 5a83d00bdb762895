"""Open-Sora's pipeline: text, and pictures or clips beside it, to video.

Shape letters: B clips, C channels, T frames, F latent frames, H, W height and width in pixels, h, w of latents,
L tokens, D width of a text state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, SchedulerMixin
from diffusers.loaders import CogVideoXLoraLoaderMixin
from diffusers.utils import BaseOutput
from diffusers.video_processor import VideoProcessor
from transformers import T5EncoderModel, T5Tokenizer

from . import inputs
from .making import OnStepEnd, Request, make, stepper
from .masks import ALIGN
from .prompts import prepare_prompts
from .references import collect, entries
from .sizes import VIDEO_FPS
from .text import given_or_encoded, null_caption
from .vae import AutoencoderKLOpenSora

Generators = torch.Generator | list[torch.Generator] | None


@dataclass
class OpenSoraPipelineOutput(BaseOutput):
    """`frames`: for each clip a list of PIL pictures, or an array (B, T, H, W, 3), or a tensor (B, T, 3, H, W), or
    latents (B, C, F, h, w)."""

    frames: Any


class OpenSoraPipeline(DiffusionPipeline, CogVideoXLoraLoaderMixin):
    """Open-Sora 1.2, and, with a STDiT and a scheduler that is no flow, 1.0. LoRAs load as in CogVideoX's pipeline.

    Args:
        tokenizer, text_encoder: T5 v1.1 XXL.
        vae: The VAE, 2D only for 1.0.
        transformer: `STDiT3Transformer3DModel` (1.2) or `STDiTTransformer3DModel` (1.0).
        scheduler: `FlowMatchEulerDiscreteScheduler` (1.2); for 1.0 one that denoises, such as `DDPMScheduler`.
    """

    __module__ = "modelgrow.pipelines"
    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _callback_tensor_inputs = ("latents",)

    def __init__(
        self,
        tokenizer: T5Tokenizer,
        text_encoder: T5EncoderModel,
        vae: AutoencoderKLOpenSora,
        transformer: Any,
        scheduler: SchedulerMixin,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler
        )
        self.vae_scale_factor_spatial = vae.spatial_compression_ratio if vae is not None else 8
        self.vae_scale_factor_temporal = vae.temporal_compression_ratio if vae is not None else 4
        # Sizes need not be multiples of anything: the VAE leaves out the last few pixels, as in the reference.
        self.video_processor = VideoProcessor(vae_scale_factor=1)

    @classmethod
    def from_published(cls, transformer: Any, **options: Any) -> Any:
        """A pipeline of the pieces that the Open-Sora authors published; see `assemble.from_published`."""
        from .assemble import from_published

        return from_published(cls, transformer, **options)

    @property
    def num_timesteps(self) -> int:
        """Steps of the call that runs, over all its loops."""
        return int(self._num_timesteps)

    @property
    def guidance_scale(self) -> float:
        """Of the call that runs."""
        return float(self._guidance_scale)

    @property
    def is_flow(self) -> bool:
        """Rectified flow (1.2), not denoising diffusion (1.0)."""
        return isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler)

    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        do_classifier_free_guidance: bool = True,
        num_videos_per_prompt: int = 1,
        device: torch.device | None = None,
        prompt_embeds: torch.Tensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        negative_prompt_attention_mask: torch.Tensor | None = None,
        max_sequence_length: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """States and masks of prompts, as they are, and of what stands against them.

        Without a negative prompt that is the learned null caption; the reference knows no other.

        Returns:
            `prompt_embeds` (B, L, D), `prompt_attention_mask` (B, L), and both of the other half, or None twice.
        """
        device = device or self._execution_device
        length = max_sequence_length or self.transformer.config.model_max_length
        text = given_or_encoded(self, prompt, prompt_embeds, prompt_attention_mask, length, device)
        if not do_classifier_free_guidance:
            text = text.repeated(num_videos_per_prompt)
            return text.states, text.mask, None, None
        negative = null_caption(self.transformer, text)
        if negative_prompt or negative_prompt_embeds is not None:
            words = inputs.one_each(negative_prompt, len(text.states), "negative prompts")
            masked = negative_prompt_attention_mask
            negative = given_or_encoded(self, words, negative_prompt_embeds, masked, length, device)
        text, negative = text.repeated(num_videos_per_prompt), negative.repeated(num_videos_per_prompt)
        return text.states, text.mask, negative.states, negative.mask

    def encode_video(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) in [-1, 1] -> latents (B, C, F, h, w), float32: the mean, where the reference draws."""
        latents: torch.Tensor = self.vae.encode(pixels.to(self._execution_device)).latent_dist.mode()
        return latents

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        *,
        image: Any = None,
        last_image: Any = None,
        video: Any = None,
        height: int | None = None,
        width: int | None = None,
        resolution: str | None = None,
        aspect_ratio: str | None = None,
        num_frames: int | str | None = None,
        fps: int = VIDEO_FPS,
        num_inference_steps: int | None = None,
        guidance_scale: float = 7.0,
        guidance_channels: int | None = None,
        num_videos_per_prompt: int = 1,
        aesthetic_score: float | None = 6.5,
        motion_score: float | None = None,
        camera_motion: str | None = None,
        clean_caption: bool = True,
        edit_ratio: float = 0.0,
        mask_strategy: str | list[str] | None = None,
        loop: int = 1,
        condition_frame_length: int = ALIGN,
        align: int | None = ALIGN,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        negative_prompt_attention_mask: torch.Tensor | None = None,
        max_sequence_length: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: OnStepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> OpenSoraPipelineOutput | tuple[Any]:
        """Make clips.

        Args:
            prompt: What they show; "|0| a calm sea |2| a storm" says so by loop.
            negative_prompt: What they do not show, in place of the learned null caption.
            image, last_image: Pictures to begin and to end with, one, or one for each prompt.
            video: A clip to go on from, or, with an `edit_ratio`, to edit; one, or one for each prompt.
            height, width: In pixels.
            resolution, aspect_ratio: In their place: "144p" to "1080p", and height to width, such as "9:16".
                Default: 240p and 9:16; 256 x 256 for Open-Sora 1.0.
            num_frames: A number, or "2s", "4s", "8s", "16s". Default: 51, for 1.0 16.
            fps: Frames per second, which 1.2 is told.
            num_inference_steps: Default: 30, for 1.0 100.
            guidance_scale: 1 is without guidance.
            guidance_channels: How many of the latents' channels are guided. Default: all, for 1.0 its authors' 3 of 4.
            num_videos_per_prompt: Clips of each prompt.
            aesthetic_score, motion_score, camera_motion: Said after the prompt; None says nothing. 1.0 knows none.
            clean_caption: Clean the prompt, see `prompts.text_preprocessing`.
            edit_ratio: How much of what is given may change, from 0 to 1.
            mask_strategy: Where what is given goes, in the reference's form, see `masks`: in place of the rules above,
                one, or one for each prompt. References are numbered in the order image, last_image, video.
            loop: Make so many clips, each beginning with the end of the one before, and join them.
            condition_frame_length: How many latent frames of the clip before, a multiple of 5.
            align: Set in what is given at multiples of so many latent frames; None is anywhere.
            generator: Of the noise; one, or one for each clip.
            latents: Noise of the first loop, (B, C, F, h, w).
            prompt_embeds, prompt_attention_mask, negative_prompt_embeds, negative_prompt_attention_mask: From
                `encode_prompt`, in place of texts.
            max_sequence_length: Tokens of a prompt. Default: the model's, 300, for 1.0 120.
            output_type: "pil", "np", "pt" or "latent".
            return_dict: False gives a tuple.
            callback_on_step_end: As diffusers has it; may replace the latents.
            callback_on_step_end_tensor_inputs: "latents", or nothing.

        Raises:
            GenerateError: What is asked for contradicts itself, or can't be made.
        """
        count = inputs.check_prompts(prompt, prompt_embeds, prompt_attention_mask)
        defaults = inputs.FLOW if self.is_flow else inputs.DIFFUSION
        factor = self.vae.spatial_compression_ratio
        size = inputs.resolve_size(defaults, (height, width), (resolution, aspect_ratio), num_frames, factor)
        num_latents = self.vae.latent_frames(size.num_frames)
        inputs.check_loops(loop, condition_frame_length, num_latents)
        given = entries(image, last_image, video, num_latents, edit_ratio, condition_frame_length)
        scores = {"aes": aesthetic_score, "flow": motion_score, "camera_motion": camera_motion} if self.is_flow else {}
        steps = num_inference_steps or defaults.num_inference_steps
        self._guidance_scale, self._num_timesteps = guidance_scale, steps * loop
        with self.progress_bar(total=steps * loop) as bar:
            request = Request(
                text={
                    "prompt": prepare_prompts(prompt, clean=clean_caption, **scores),
                    "negative_prompt": prepare_prompts(negative_prompt, clean=clean_caption),
                    "do_classifier_free_guidance": guidance_scale != 1,
                    "num_videos_per_prompt": num_videos_per_prompt,
                    "prompt_embeds": prompt_embeds,
                    "prompt_attention_mask": prompt_attention_mask,
                    "negative_prompt_embeds": negative_prompt_embeds,
                    "negative_prompt_attention_mask": negative_prompt_attention_mask,
                    "max_sequence_length": max_sequence_length,
                },
                size=size,
                fps=fps,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                guidance_channels=guidance_channels or defaults.guidance_channels,
                references=collect(self, given, mask_strategy, count, size).repeated(num_videos_per_prompt),
                loop=loop,
                condition_frame_length=condition_frame_length,
                align=align,
                generator=generator,
                latents=latents,
                as_latents=output_type == "latent",
                on_step=stepper(self, bar, callback_on_step_end, callback_on_step_end_tensor_inputs),
            )
            made: Any = make(self, request)
        if output_type != "latent":
            made = self.video_processor.postprocess_video(made.float(), output_type=output_type)
        self.maybe_free_model_hooks()
        return OpenSoraPipelineOutput(frames=made) if return_dict else (made,)
