"""EasyAnimate 5 and 5.1; what its three pipelines do before and around their transformer.

EasyAnimatePipeline makes clips from text. The model of EasyAnimateInpaintPipeline learns to go on from the clip's first
frame. That of EasyAnimateControlPipeline reads a control clip, `control_video`, where the data have one, and makes
clips from text where they have none; its cameras and reference pictures are no part of the data here. EasyAnimate's own
trainer draws levels evenly, which is `timestep_sampling = "uniform"`.

Shape letters: B samples, C channels, T frames, H, W in pixels, F latent frames, h, w in latents, L tokens, D width of
their states.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.easyanimate.pipeline_easyanimate_inpaint import add_noise_to_reference_video, resize_mask

from modelgrow.surgery.grown import stock_name

from .family import Control
from .latents import mean_of, scaled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .family import Text

INPAINTS, CONTROLLED = "EasyAnimateInpaintPipeline", "EasyAnimateControlPipeline"
CLIP = "control_video"
INPAINT = "kept_inpaint_latents"
"""(B, M + C, F, h, w): a mask of M channels, 1 or C, and the given frame. Guidance has them on both sides."""
CONTROL = "kept_control_latents"
"""(B, C, F, h, w) of a control clip; guidance has them on both sides too."""
NOT_GIVEN = -1.0
"""A pixel."""
NOISE_MEAN, NOISE_DEVIATION = -3.0, 0.5
"""Of the ln of how much noise a given picture gets, from the trainer too."""
TEXT_ENDS = ("attn1.add_q_proj.", "attn1.norm_added_q.", "attn1.to_add_out.", "txt_ff.")
"""What makes the text that a block hands on."""


def encode_text(pipeline: Any, captions: list[str]) -> dict[str, torch.Tensor]:
    """`states` (B, L, D)."""
    states, _, _, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False)
    return {"states": states}


def encode_video(pipeline: Any, pixels: torch.Tensor) -> torch.Tensor:
    return scaled(pipeline.vae, mean_of(pipeline.vae, pixels))


def controls(pipeline: Any) -> Mapping[str, Control]:
    return {CLIP: Control(required=False)} if _kind(pipeline) == CONTROLLED else {}


def encode_conditions(
    pipeline: Any, pixels: torch.Tensor, frame_rates: list[float | None], controls: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What is read beside the noisy latents.

    The inpainting model's, as its pipeline makes it of a clip and a mask of it, and the control model's control clips;
    for that of text there is nothing.
    """
    if CLIP in controls:
        return {CONTROL: encode_video(pipeline, controls[CLIP])}
    if _kind(pipeline) != INPAINTS:
        return {}
    config = pipeline.transformer.config
    given = torch.full_like(pixels, NOT_GIVEN)
    given[:, :, :1] = _noised(pixels[:, :, :1]) if config.add_noise_in_inpaint_model else pixels[:, :, :1]
    latents = encode_video(pipeline, given)
    hidden = torch.ones_like(pixels)
    hidden[:, :, :1] = 0
    if config.resize_inpaint_mask_directly:
        vae = pipeline.vae.config
        mask = resize_mask(1 - hidden[:, :1], latents, vae.get("cache_mag_vae", True)) * vae.scaling_factor
    else:
        mask = encode_video(pipeline, hidden)
    return {INPAINT: torch.cat([mask, latents], dim=1)}


def idle(name: str, config: Any) -> bool:
    """Whether a parameter has no part in the answer: what the last block makes of the text, which nobody reads."""
    last = f"transformer_blocks.{config.num_layers - 1}."
    return name.startswith(last) and name.removeprefix(last).startswith(TEXT_ENDS)


def predict(pipeline: Any, model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
    channels = noisy.shape[1]
    inpaint = text[INPAINT].to(noisy.dtype) if _kind(pipeline) == INPAINTS else None
    control = _control(pipeline, noisy, text) if inpaint is None else None
    output: torch.Tensor = model(
        noisy,
        timesteps,
        encoder_hidden_states=text["states"],
        inpaint_latents=inpaint,
        control_latents=control,
        return_dict=False,
    )[0]
    return output[:, :channels]


def _control(pipeline: Any, noisy: torch.Tensor, text: Text) -> torch.Tensor | None:
    """What the model reads beside the noisy latents: the control clip, and zeros for what is not there."""
    given = [text[CONTROL].to(noisy.dtype)] if CONTROL in text else []
    left = pipeline.transformer.config.in_channels - noisy.shape[1] * (1 + len(given))
    if not given and not left:
        return None
    return torch.cat([*given, noisy.new_zeros(len(noisy), left, *noisy.shape[2:])], dim=1)


def _kind(pipeline: Any) -> str:
    return stock_name(type(pipeline).__name__)


def _noised(pictures: torch.Tensor) -> torch.Tensor:
    """Each with noise that follows from itself, so that every process makes the same."""
    noised = []
    for picture in pictures.float().cpu():
        digest = hashlib.sha256(picture.numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        strength = (torch.randn(1, generator=generator) * NOISE_DEVIATION + NOISE_MEAN).exp()
        noised.append(add_noise_to_reference_video(picture[None], ratio=strength, generator=generator))
    return torch.cat(noised).to(pictures)
