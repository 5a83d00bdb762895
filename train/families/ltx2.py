"""LTX-2 and LTX-2.3, text and image to video; what LTX2Pipeline and LTX2ImageToVideoPipeline do around the transformer.

The model denoises video and sound together; clips here have no sound. They train as Lightricks' own trainer trains
on video alone (ltx-trainer, a strategy without `audio`): the two streams are kept apart, which diffusers calls
`isolate_modalities` and the pipeline's guidance asks of the model at every step too. The video's answer then does not
depend on what stands in the sound's stream, here one token of zeros, and nothing of the sound's half trains, see
`idle`. Its weights stay as they are, and the pipeline makes video and sound together as before.

From a picture, the first latent frame is given as in `ltx`. The pipeline compresses a picture as video is before it
encodes it; the first frames of clips are as they are.

Shape letters: B samples, C channels, F latent frames, h, w height and width of the latents, L tokens, D width
of their states.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers import LTX2Pipeline

from ..objectives import RectifiedFlow
from ..objectives.first_frame_flow import FirstFrameFlow, first_frame_flow, of_tokens
from ..objectives.shifted_flow import ShiftedFlow
from .ltx import encode_video

if TYPE_CHECKING:
    from ..objectives.objective import Objective
    from ..settings import Settings
    from .family import Text

__all__ = ["encode_conditions", "encode_text", "encode_video", "idle", "objective", "predict"]

FRAME_RATE = 24.0
"""Of clips that do not say; what the pipeline assumes too."""
RATES = "kept_frame_rates"
"""(B,) int64, in thousandths of a frame per second: whole numbers stay exact where states become bfloat16."""
UNHEARD = ("audio_", "video_to_audio_", "video_a2v_", "av_cross_attn_")
"""How parts of names begin that only sound, or its exchange with the video, goes through."""
KEYFRAMES = "keyframes_abs_pos_embedding"
"""For single frames beside the clip, which the pipeline of text to video does not have."""


def objective(pipeline: Any, settings: Settings) -> Objective:
    """The noise levels of Lightricks' trainer; `shift` is in the place of what follows from the number of tokens."""
    found = first_frame_flow(pipeline, settings)
    if settings.timestep_sampling == "uniform" or not isinstance(found, FirstFrameFlow | RectifiedFlow):
        return found
    patch = pipeline.transformer_spatial_patch_size**2 * pipeline.transformer_temporal_patch_size
    fixed = None if settings.shift is None else math.log(settings.shift)
    levels = ShiftedFlow.of(pipeline.scheduler, patch=patch, fixed=fixed)
    return replace(found, flow=levels) if isinstance(found, FirstFrameFlow) else levels


def idle(name: str, config: Any = None) -> bool:
    """Whether a parameter has no part in the video's answer, by its name; `config` is not read."""
    return name == KEYFRAMES or any(part.startswith(UNHEARD) for part in name.split("."))


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """What the connectors, a component of their own, make of the language model's layers for the video:
    `states` (B, L, D) and `mask` (B, L)."""
    layers, mask, _, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False)
    states, _, mask = pipeline.connectors(layers, mask, padding_side=pipeline.tokenizer.padding_side)
    return {"states": states, "mask": mask}


def encode_conditions(pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None]) -> dict[str, torch.Tensor]:
    """The clips' own frame rates: the model's positions are in seconds."""
    rates = [round((rate or FRAME_RATE) * 1000) for rate in frame_rates]
    return {RATES: torch.tensor(rates, device=pixels.device)}


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    """`timesteps`: (B, F), or (B,) where no frame is given."""
    batch, _, frames, height, width = noisy.shape
    patch, patch_t = pipeline.transformer_spatial_patch_size, pipeline.transformer_temporal_patch_size
    config, sigma = pipeline.transformer.config, timesteps.view(batch, -1).amax(dim=1)
    audio_width = config.caption_channels if config.use_prompt_embeddings else config.audio_cross_attention_dim
    output = model(
        hidden_states=LTX2Pipeline._pack_latents(noisy, patch, patch_t),
        audio_hidden_states=noisy.new_zeros(batch, 1, config.audio_in_channels),
        encoder_hidden_states=text["states"],
        audio_encoder_hidden_states=text["states"].new_zeros(batch, 1, audio_width),
        timestep=of_tokens(timesteps, (height // patch) * (width // patch)),
        audio_timestep=sigma,
        sigma=sigma,
        encoder_attention_mask=text["mask"],
        num_frames=frames,
        height=height,
        width=width,
        audio_num_frames=1,
        video_coords=_coordinates(pipeline, noisy, text.get(RATES)),
        isolate_modalities=True,
        use_cross_timestep=True,
        return_dict=False,
    )[0]
    unpacked: torch.Tensor = LTX2Pipeline._unpack_latents(output, frames, height, width, patch, patch_t)
    return unpacked


def _coordinates(pipeline: Any, noisy: torch.Tensor, rates: torch.Tensor | None) -> torch.Tensor:
    """Where each token begins and ends in seconds and pixels, (B, 3, tokens, 2), by the clips' frame rates."""
    batch, _, frames, height, width = noisy.shape
    rope = pipeline.transformer.rope
    if rates is None:
        found: torch.Tensor = rope.prepare_video_coords(batch, frames, height, width, noisy.device, fps=FRAME_RATE)
        return found
    found = rope.prepare_video_coords(batch, frames, height, width, noisy.device, fps=1.0)
    seconds = found[:, :1] / (rates.float() / 1000).view(-1, 1, 1, 1)
    return torch.cat([seconds, found[:, 1:]], dim=1)
