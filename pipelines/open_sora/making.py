"""One call of the pipeline: for each loop text, noise, frames that are given, denoising; then frames.

Shape letters: B clips, C channels, T frames, F latent frames, H, W height and width in pixels, h, w of latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from modelgrow.surgery import GenerateError

from .denoise import Denoiser, OnStep, sample_diffusion, sample_flow
from .flow import set_flow_timesteps
from .masks import apply_mask_strategy
from .prompts import extract_prompts_loop
from .sizes import IMAGE_FPS, dframe_to_frame
from .text import TextStates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .inputs import Size
    from .references import References


OnStepEnd = Callable[[Any, int, torch.Tensor, dict[str, Any]], dict[str, Any]]
"""diffusers' `callback_on_step_end`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What a call was asked for, resolved."""

    text: Mapping[str, Any]
    """Arguments of `encode_prompt`; the prompts with their scores, cleaned, each for all loops."""
    size: Size
    fps: float
    num_inference_steps: int
    guidance_scale: float
    guidance_channels: int | None
    references: References
    loop: int
    condition_frame_length: int
    align: int | None
    generator: Any
    latents: torch.Tensor | None
    """Noise of the first loop, if given."""
    as_latents: bool
    on_step: OnStep
    """As in `denoise`, the steps counted over all loops."""


def make(pipeline: Any, request: Request) -> torch.Tensor:
    """Frames (B, 3, T, H, W), about [-1, 1], or latents (B, C, F, h, w); the loops one after another."""
    parts = []
    for index in range(request.loop):
        latents = _denoised(pipeline, request, index)
        following = index + 1 < request.loop
        clip = latents
        if following or not request.as_latents:
            clip = pipeline.vae.decode(latents, num_frames=request.size.num_frames).sample
        if following:
            # By way of the pixels, as the reference has it: the clip's end is coded anew, without what came before.
            length = request.condition_frame_length
            entry = f"{index + 1},{{}},-{length},0,{length},0.0"
            request.references.add(list(pipeline.encode_video(clip)), entry)
        parts.append(_new(latents if request.as_latents else clip, request, index))
    return torch.cat(parts, dim=2)


def _new(clip: torch.Tensor, request: Request, index: int) -> torch.Tensor:
    """Without the frames of the loop before, with which it began."""
    if index == 0:
        return clip
    length = request.condition_frame_length
    return clip[:, :, length if request.as_latents else dframe_to_frame(length) :]


def _denoised(pipeline: Any, request: Request, index: int) -> torch.Tensor:
    """The latents of one loop, (B, C, F, h, w), float32."""
    denoiser = _denoiser(pipeline, request, index)
    count = len(denoiser.text.states) // (2 if denoiser.guided else 1)
    noise = _noise(pipeline, request, count, index)

    def on_step(step: int, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        return request.on_step(index * request.num_inference_steps + step, timestep, latents)

    if pipeline.is_flow:
        return _by_flow(pipeline.scheduler, denoiser, request, index, noise, on_step)
    if request.references:
        raise GenerateError(
            f"{type(pipeline.scheduler).__name__} can't keep frames that are given; Open-Sora 1.2 and its flow can"
        )
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(request.num_inference_steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    return sample_diffusion(denoiser, scheduler, latents, generator=request.generator, on_step=on_step)


def _denoiser(pipeline: Any, request: Request, index: int) -> Denoiser:
    """Of one loop, which may have a text of its own."""
    text, guided = _text(pipeline, request, index)
    return Denoiser(
        transformer=pipeline.transformer,
        text=text,
        fps=request.fps if request.size.num_frames > 1 else IMAGE_FPS,
        height=request.size.height,
        width=request.size.width,
        guidance_scale=request.guidance_scale,
        guided=guided,
        guidance_channels=request.guidance_channels,
    )


def _by_flow(
    scheduler: Any, denoiser: Denoiser, request: Request, index: int, noise: torch.Tensor, on_step: OnStep
) -> torch.Tensor:
    latents, ratios, given = noise, None, request.references
    if given:
        latents, ratios = apply_mask_strategy(noise, given.latents, given.strategies, index, request.align)
    set_flow_timesteps(
        scheduler,
        request.num_inference_steps,
        height=request.size.height,
        width=request.size.width,
        num_frames=request.size.num_frames,
        device=noise.device,
    )
    fresh = _drawn(tuple(noise.shape), request, noise.device)
    return sample_flow(denoiser, scheduler, latents, ratios=ratios, noise=fresh, on_step=on_step)


def _text(pipeline: Any, request: Request, index: int) -> tuple[TextStates, bool]:
    """Of one loop, and whether there are both halves of guidance."""
    arguments = dict(request.text)
    if arguments["prompt"] is not None:
        arguments["prompt"] = extract_prompts_loop(arguments["prompt"], index)
    states, mask, negative, negative_mask = pipeline.encode_prompt(**arguments)
    text = TextStates(states=states, mask=mask)
    if negative is None:
        return text, False
    return text.guided_by(TextStates(states=negative, mask=negative_mask)), True


def _noise(pipeline: Any, request: Request, count: int, index: int) -> torch.Tensor:
    vae, size = pipeline.vae, request.size
    factor = vae.spatial_compression_ratio
    frames = vae.latent_frames(size.num_frames)
    shape = (count, vae.latent_channels, frames, size.height // factor, size.width // factor)
    device = pipeline._execution_device
    if request.latents is None or index > 0:
        return _drawn(shape, request, device)()
    if tuple(request.latents.shape) != shape:
        raise GenerateError(f"latents have shape {list(request.latents.shape)}; those of this clip are {list(shape)}")
    return request.latents.to(device, torch.float32)


def _drawn(shape: tuple[int, ...], request: Request, device: torch.device) -> Callable[[], torch.Tensor]:
    """Draws noise, float32. It stays so over all steps, whatever the model's dtype."""

    def draw() -> torch.Tensor:
        drawn: torch.Tensor = randn_tensor(shape, generator=request.generator, device=device, dtype=torch.float32)
        return drawn

    return draw


def stepper(pipeline: Any, bar: Any, callback: OnStepEnd | None, names: Sequence[str]) -> OnStep:
    """What is done after a step: the bar moves, the callback is called and may give other latents."""

    def on_step(step: int, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        bar.update()
        if callback is None:
            return latents
        values = {"latents": latents} if "latents" in names else {}
        result: torch.Tensor = callback(pipeline, step, timestep, values).get("latents", latents)
        return result

    return on_step
